// Who may ask. The key itself is never here: `/entrypoint.sh` passes its hash on.

import { createHash, timingSafeEqual } from 'node:crypto'

import { access } from './settings.mjs'

const digest = text => createHash('sha512').update(text).digest()
const keyHash = Buffer.from(access.keyHash, 'hex')

function hasKey(request) {
	const given = digest(String(request.headers['x-api-key'] ?? ''))
	return given.length === keyHash.length && timingSafeEqual(given, keyHash)
}

function hasPassword(request) {
	const { username, password } = access.dashboard
	const [kind, credentials] = String(request.headers.authorization ?? '').split(' ')
	const given = kind === 'Basic' ? Buffer.from(credentials ?? '', 'base64') : ''
	return password !== '' && timingSafeEqual(digest(given), digest(`${username}:${password}`))
}

// Null, or the answer that refuses.
export function refusal(request, path) {
	if (path === '/dashboard') {
		return hasPassword(request) ? null : { status: 401, headers: { 'www-authenticate': 'Basic realm="dashboard"' } }
	}
	if (access.openPaths.includes(path.slice(1)) || hasKey(request)) {
		return null
	}
	return { status: 401, json: { message: 'Unauthorized', statusCode: 401 } }
}
