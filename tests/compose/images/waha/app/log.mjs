// One JSON object a line, in pino's manner. Written past `console`, which the Baileys parts listen to.

import { hostname } from 'node:os'

function write(level, message, fields) {
	process.stdout.write(`${JSON.stringify({ level, time: Date.now(), pid: process.pid, hostname: hostname(), ...fields, msg: message })}\n`)
}

export const log = {
	info: (message, fields) => write('info', message, fields),
	warn: (message, fields) => write('warn', message, fields),
	error: (message, fields) => write('error', message, fields)
}
