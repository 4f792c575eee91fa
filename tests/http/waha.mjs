// A gateway with the part of WAHA's outside that the dashboard asks for: its sessions, and a QR code to
// scan. It keeps creds.json as NOWEB does. The tests' own requests are under /stand-in/.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { picture } from '../compose/images/waha/app/png.mjs'

const { PORT, S, WAHA_API_KEY } = process.env
const names = (process.env.SESSIONS ?? 'default').split(',').filter(Boolean)
const folder = name => join(S, 'noweb', name)
const file = name => join(folder(name), 'creds.json')

function linked(name) {
	try {
		return JSON.parse(readFileSync(file(name))).me !== undefined
	} catch {
		return false
	}
}

const sessions = new Map(names.map(name => [name, linked(name) ? 'WORKING' : 'SCAN_QR_CODE']))

function told(name) {
	const me = linked(name) ? { id: '4915112345678@c.us', pushName: 'Test' } : null
	return { name, status: sessions.get(name), me, engine: { engine: 'NOWEB' }, config: {} }
}

function scan(name) {
	mkdirSync(folder(name), { recursive: true })
	writeFileSync(file(name), JSON.stringify({ me: { id: '4915112345678@s.whatsapp.net' } }))
	sessions.set(name, 'WORKING')
}

function logout(name) {
	rmSync(folder(name), { recursive: true, force: true })
	sessions.set(name, 'SCAN_QR_CODE')
}

const server = createServer((request, response) => {
	const path = new URL(request.url, 'http://localhost').pathname
	const send = (code, body, type = 'application/json') => {
		response.writeHead(code, { 'content-type': type })
		response.end(type === 'application/json' ? JSON.stringify(body) : body)
	}
	if (path === '/ping') return send(200, { message: 'pong' })
	const [, first, second, third] = path.split('/')
	if (first === 'stand-in') {
		if (third === 'scan') scan(second)
		else if (third === 'logout') logout(second)
		// Any other word is the status that it has from now on.
		else sessions.set(second, third)
		return send(200, told(second))
	}
	if (request.headers['x-api-key'] !== WAHA_API_KEY) return send(401, { message: 'Unauthorized' })
	if (path === '/api/sessions') return send(200, [...sessions.keys()].map(told))
	if (first === 'api' && third === 'auth') {
		if (process.env.HOSTILE) return send(200, '<script>alert(1)</script>', 'text/html')
		return send(200, picture(`code of ${second} at ${Date.now()}`), 'image/png')
	}
	send(404, { message: 'Not found' })
})

process.on('SIGTERM', () => process.exit(0))
server.listen(Number(PORT), '127.0.0.1', () => console.log('the gateway listens'))
