// A bot on the real Baileys library that writes without a pause: new pre-keys, then `creds.json` with
// their number, then the oldest pre-keys go. `unpaused.mjs DIR`. At each moment all pre-keys of the
// last WINDOW numbers below `nextPreKeyId` are there, and at most BATCH above. TERM ends it.

import { generateOrGetPreKeys } from '@whiskeysockets/baileys/lib/Utils/signal.js'
import { useMultiFileAuthState } from '@whiskeysockets/baileys/lib/Utils/use-multi-file-auth-state.js'

const WINDOW = 20
const BATCH = 2

let stopping = false
process.on('SIGTERM', () => {
	stopping = true
})

const { state, saveCreds } = await useMultiFileAuthState(process.argv[2])
const { creds, keys } = state
creds.me ??= { id: '4915100000001@s.whatsapp.net', name: 'unpaused' }

while (!stopping) {
	const { newPreKeys, lastPreKeyId } = generateOrGetPreKeys(creds, BATCH)
	await keys.set({ 'pre-key': newPreKeys })
	creds.nextPreKeyId = lastPreKeyId + 1
	creds.firstUnuploadedPreKeyId = creds.nextPreKeyId
	await saveCreds()
	const used = {}
	for (let id = creds.nextPreKeyId - WINDOW - 2 * BATCH; id < creds.nextPreKeyId - WINDOW; id++) {
		used[id] = null
	}
	await keys.set({ 'pre-key': used })
}
