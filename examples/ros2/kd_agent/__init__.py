"""One agent of a student bundle as a ROS 2 node."""
