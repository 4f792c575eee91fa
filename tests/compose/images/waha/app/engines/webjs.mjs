// WEBJS: a browser for each session, which alone writes the session's user data directory.

import { rm, unlink } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { join } from 'node:path'

import { Child } from './child.mjs'

export class Webjs {
	healthy = true

	async start() {}

	login(name, folder) {
		return new Login(name, folder)
	}

	async stop() {}
}

class Login {
	#profile
	#socket
	#chrome
	#ended
	loggedIn = false

	constructor(name, folder) {
		this.#profile = join(folder, `session-${name}`)
		this.#socket = `/tmp/org.chromium.Chromium.${createHash('sha256').update(folder).digest('hex').slice(0, 6)}`
	}

	async open() {
		await unlink(this.#socket).catch(() => {})
		let exited
		this.#ended = new Promise(resolve => (exited = resolve))
		this.#chrome = await Child.start({
			name: 'chrome',
			command: process.execPath,
			args: ['/app/chrome.mjs', this.#profile, this.#socket],
			socket: this.#socket,
			onExit: exited
		})
		this.loggedIn = (await this.#chrome.ask('open')).logged_in
	}

	async scan() {
		await this.#chrome.ask('scan')
		this.loggedIn = true
	}

	async send() {
		return (await this.#chrome.ask('send')).n
	}

	state() {
		return this.#chrome.ask('state')
	}

	grow(bytes) {
		return this.#chrome.ask('grow', { bytes })
	}

	// The browser has them itself when it closes.
	async lastWords() {
		return null
	}

	async close() {
		// It may have had a TERM of its own by now.
		if (this.#chrome.alive) {
			this.#chrome.terminate()
		}
		await this.#ended
	}

	async erase() {
		await rm(this.#profile, { recursive: true, force: true })
	}
}
