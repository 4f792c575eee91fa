// One account: a `useMultiFileAuthState` folder and the library's Signal repository on it.

import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'

import { makeLibSignalRepository } from '@whiskeysockets/baileys/lib/Signal/libsignal.js'
import { addTransactionCapability } from '@whiskeysockets/baileys/lib/Utils/auth-utils.js'
import { generateSignalPubKey } from '@whiskeysockets/baileys/lib/Utils/crypto.js'
import { generateOrGetPreKeys } from '@whiskeysockets/baileys/lib/Utils/signal.js'
import { useMultiFileAuthState } from '@whiskeysockets/baileys/lib/Utils/use-multi-file-auth-state.js'

// As many accounts can write to one for the first time without sharing a pre-key.
const SHARES = 15

const silent = {
	level: 'silent',
	child: () => silent,
	trace() {},
	debug() {},
	info() {},
	warn() {},
	error() {}
}

// The library tells the causes of a failed decryption on the console only. They are what the
// reply has to name, so the console is listened to; `libsignal` also prints whole sessions there.
let heard = []
for (const channel of ['error', 'warn', 'info', 'log']) {
	console[channel] = (...words) => heard.push(words.map(String).join(' '))
}

// "Session error:" + error + " " + stack, where the stack begins with the same words once more.
function causes() {
	return heard
		.filter(line => line.startsWith('Session error:'))
		.map(line => line.slice('Session error:'.length).split('\n')[0].replace(/^(.*) \1$/, '$1'))
}

// An error with its name, the step it happened at, and what the library said about it.
function described(step, error) {
	const named = { step, name: error.name, message: error.message, causes: causes() }
	heard = []
	return named
}

export class Account {
	static async open(name, number, folder, preKeys) {
		const { state, saveCreds } = await useMultiFileAuthState(folder)
		const keys = addTransactionCapability(state.keys, silent, { maxCommitRetries: 10, delayBetweenTriesMs: 100 })
		const account = new Account(name, number, folder, { creds: state.creds, keys, saveCreds })
		// The same test as the library's: without an account of its own, a folder is a new login.
		account.fresh = !state.creds.me
		if (account.fresh) {
			state.creds.me = { id: account.jid, name }
			state.creds.additionalData = { last_message: 0, sent: {}, received: {} }
			await account.uploadPreKeys(preKeys)
		}
		return account
	}

	constructor(name, number, folder, { creds, keys, saveCreds }) {
		this.name = name
		this.number = number
		this.folder = folder
		this.jid = `${4915100000000 + number}@s.whatsapp.net`
		this.creds = creds
		this.keys = keys
		this.saveCreds = saveCreds
		this.repository = makeLibSignalRepository({ creds, keys }, silent, async () => [])
	}

	get lastMessage() {
		return this.creds.additionalData.last_message
	}

	// The library's way of making pre-keys: new files, then the counters in `creds.json`.
	async uploadPreKeys(count) {
		const { newPreKeys, lastPreKeyId } = generateOrGetPreKeys(this.creds, count)
		await this.keys.set({ 'pre-key': newPreKeys })
		this.creds.nextPreKeyId = Math.max(lastPreKeyId + 1, this.creds.nextPreKeyId)
		this.creds.firstUnuploadedPreKeyId = this.creds.nextPreKeyId
		await this.saveCreds()
	}

	async preKeyIds() {
		const names = await readdir(this.folder)
		return names.flatMap(name => /^pre-key-(\d+)\.json$/.exec(name)?.[1] ?? []).map(Number)
	}

	// What the server would hand out to somebody who writes to this account for the first time.
	// It gives no pre-key to two askers: each asker has its own share of the numbers.
	async bundleFor(asker) {
		const share = (await this.preKeyIds()).filter(id => id % SHARES === asker.number % SHARES)
		const id = Math.min(...share)
		const { [id]: preKey } = await this.keys.get('pre-key', [String(id)])
		const { signedPreKey, signedIdentityKey, registrationId } = this.creds
		return {
			registrationId,
			identityKey: generateSignalPubKey(signedIdentityKey.public),
			signedPreKey: {
				keyId: signedPreKey.keyId,
				publicKey: generateSignalPubKey(signedPreKey.keyPair.public),
				signature: signedPreKey.signature
			},
			preKey: { keyId: id, publicKey: generateSignalPubKey(preKey.public) }
		}
	}

	async encryptFor(peer, text) {
		try {
			const { exists } = await this.repository.validateSession(peer.jid)
			if (!exists) {
				await this.repository.injectE2ESession({ jid: peer.jid, session: await peer.bundleFor(this) })
			}
			return await this.repository.encryptMessage({ jid: peer.jid, data: Buffer.from(text) })
		} catch (error) {
			throw Object.assign(new Error('failed to encrypt'), { described: described('encrypt', error) })
		}
	}

	async decryptFrom(peer, { type, ciphertext }, expected) {
		heard = []
		let text
		try {
			text = String(await this.repository.decryptMessage({ jid: peer.jid, type, ciphertext }))
		} catch (error) {
			throw Object.assign(new Error('failed to decrypt'), { described: described('decrypt', error) })
		}
		if (text !== expected) {
			const error = { name: 'WrongText', message: 'decrypted to another text than was encrypted' }
			throw Object.assign(new Error(error.message), { described: described('compare', error) })
		}
	}

	// A gateway rewrites `creds.json` all the time; here once a message, with the counters in it.
	async note(kind, peer, n) {
		const data = this.creds.additionalData
		data[kind][peer.name] = (data[kind][peer.name] ?? 0) + 1
		data.last_message = n
		this.creds.accountSyncCounter += 1
		await this.saveCreds()
	}

	async state() {
		const sessions = {}
		for (const name of (await readdir(this.folder)).filter(name => name.startsWith('session-')).sort()) {
			sessions[name] = createHash('sha256').update(await readFile(join(this.folder, name))).digest('hex')
		}
		return {
			account: this.name,
			jid: this.jid,
			fresh: this.fresh,
			identity: Buffer.from(this.creds.signedIdentityKey.public).toString('hex'),
			noise: Buffer.from(this.creds.noiseKey.public).toString('hex'),
			registration_id: this.creds.registrationId,
			next_pre_key_id: this.creds.nextPreKeyId,
			pre_keys: (await this.preKeyIds()).length,
			last_message: this.lastMessage,
			sent: this.creds.additionalData.sent,
			received: this.creds.additionalData.received,
			sessions
		}
	}

	close() {
		this.repository.close()
	}
}
