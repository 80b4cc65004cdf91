// Omniboard listens on every interface, asks for no password and lets every web page call it.
// Loaded before it (node --require), this binds it to this machine and turns away what is not its own page.
'use strict'

const http = require('http')
const net = require('net')

const host = process.env.OMNIBOARD_HOST || '127.0.0.1'
const names = ['127.0.0.1', 'localhost', '[::1]']

http.Server.prototype.listen = function (port, ...rest) {
  this.once('listening', () => console.log(`Omniboard is at http://127.0.0.1:${this.address().port}`))
  return net.Server.prototype.listen.call(this, { port: Number(port), host }, ...rest)
}

function isOwn ({ headers }) {
  const called = headers.host || ''
  const from = headers.origin
  return names.includes(called.replace(/:\d+$/, '')) && (!from || from === `http://${called}`)
}

const emit = http.Server.prototype.emit
http.Server.prototype.emit = function (event, request, response) {
  if (event !== 'request' || isOwn(request)) return emit.apply(this, arguments)
  response.writeHead(403, { 'Content-Type': 'text/plain' })
  response.end('Only pages of this Omniboard may call it, and only as 127.0.0.1 or localhost.\n')
  return true
}
