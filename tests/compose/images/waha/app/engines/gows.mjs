// GOWS: one detached process holds the databases of all sessions.

import { rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'

import { Child } from './child.mjs'

const SOCKET = '/tmp/gows.sock'

export class Gows {
	#child

	async start(onExit) {
		// A socket that an earlier process left behind would be taken for the new one's.
		await unlink(SOCKET).catch(() => {})
		this.#child = await Child.start({ name: 'gows', command: 'python3', args: ['/app/gows.py', '--socket', SOCKET], socket: SOCKET, onExit })
	}

	get healthy() {
		return this.#child?.alive ?? false
	}

	login(name, folder) {
		return new Login(this.#child, folder)
	}

	// TERM, and node goes its way: the process writes on for a while and ends by itself.
	async stop() {
		this.#child.terminate()
	}
}

class Login {
	#child
	#folder
	loggedIn = false

	constructor(child, folder) {
		this.#child = child
		this.#folder = folder
	}

	#ask(op, fields) {
		return this.#child.ask(op, { database: join(this.#folder, 'gows.db'), ...fields })
	}

	async open() {
		this.loggedIn = (await this.#ask('open')).logged_in
	}

	async scan() {
		await this.#ask('scan')
		this.loggedIn = true
	}

	async send() {
		return (await this.#ask('send')).n
	}

	state() {
		return this.#ask('state')
	}

	grow(bytes) {
		return this.#ask('grow', { bytes })
	}

	// At a stop by signal the process itself has the last word, once it is told to end.
	async lastWords() {
		return null
	}

	async close(why) {
		if (why !== 'signal') {
			await this.#ask('close')
		}
	}

	async erase() {
		await Promise.all(['', '-wal', '-shm', '-journal'].map(end => rm(join(this.#folder, `gows.db${end}`), { force: true })))
	}
}
