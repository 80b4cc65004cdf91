"""`kd-marl report`: the paper's tables and figures from finished runs, the paper's numbers beside ours."""
