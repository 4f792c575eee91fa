// A program beside node that keeps a session's files: GOWS's, or the browser. It is started in a
// session and process group of its own, and asked over a Unix socket, one JSON object a line.

import { spawn } from 'node:child_process'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'

const START_MS = 20_000

export class Child {
	#process
	#connection
	#waiting = new Map()
	#next = 1
	#ended = null

	static async start({ name, command, args, socket, onExit }) {
		const child = new Child()
		child.#spawn(name, command, args, onExit)
		await child.#connect(socket)
		return child
	}

	get alive() {
		return this.#ended === null
	}

	#spawn(name, command, args, onExit) {
		// Its output goes straight to the container's log, so that what it says after node's end is there.
		this.#process = spawn(command, args, { detached: true, stdio: ['ignore', 'inherit', 'inherit'] })
		const end = reason => {
			this.#ended ??= reason
			for (const { reject } of this.#waiting.values()) {
				reject(new Error(this.#ended))
			}
			this.#waiting.clear()
		}
		this.#process.on('error', error => end(`failed to start ${name}: ${error.message}`))
		this.#process.on('exit', (code, signal) => {
			end(`${name} ended with ${signal ?? code}`)
			onExit(code, signal)
		})
	}

	async #connect(socket) {
		const deadline = Date.now() + START_MS
		for (;;) {
			if (!this.alive) {
				throw new Error(this.#ended)
			}
			try {
				this.#connection = await new Promise((resolve, reject) => {
					const connection = connect(socket, () => resolve(connection))
					connection.once('error', reject)
				})
				break
			} catch (error) {
				if (Date.now() > deadline) {
					throw error
				}
				await pause(20)
			}
		}
		// Its end is seen by the process's exit; what breaks here on the way says nothing more. The
		// reader passes the connection's errors on as its own.
		const lines = createInterface(this.#connection)
		this.#connection.on('error', () => {})
		lines.on('error', () => {})
		lines.on('line', line => {
			const { id, error, ...answer } = JSON.parse(line)
			const { resolve, reject } = this.#waiting.get(id) ?? {}
			this.#waiting.delete(id)
			if (error) {
				reject?.(new Error(error))
			} else {
				resolve?.(answer)
			}
		})
	}

	ask(op, fields = {}) {
		if (!this.alive) {
			return Promise.reject(new Error(this.#ended))
		}
		return new Promise((resolve, reject) => {
			const id = this.#next++
			this.#waiting.set(id, { resolve, reject })
			this.#connection.write(`${JSON.stringify({ id, op, ...fields })}\n`)
		})
	}

	// Nobody waits for what it does then.
	terminate() {
		this.#process.kill('SIGTERM')
	}
}
