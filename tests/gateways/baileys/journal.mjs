// What was acknowledged, and when. The file lies outside the session directory, so that a test
// can say after a `kill -9` which messages had been exchanged and how late the last commit was.

import { openSync, writeSync } from 'node:fs'
import { randomUUID } from 'node:crypto'

export class Journal {
	#fd
	#run = randomUUID()

	constructor(path) {
		this.#fd = path ? openSync(path, 'a') : null
	}

	// Written synchronously and in one piece: a line is there or not, whatever kills the process.
	write(entry) {
		if (this.#fd !== null) {
			writeSync(this.#fd, `${JSON.stringify({ ...entry, at_ms: Date.now(), run: this.#run })}\n`)
		}
	}
}
