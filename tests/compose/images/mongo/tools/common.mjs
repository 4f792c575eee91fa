// What the two stand-ins share: the options, the connection, and the dump's layout.
//
// They are NOT MongoDB's Database Tools. They know the few options that this project's scripts
// use, refuse all others, and have an archive format of their own, which the real tools refuse
// and which refuses theirs. They read as the real ones do: one cursor in natural order, with no
// snapshot, while others write.

import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { parseArgs } from 'node:util'

import { MongoClient } from 'mongodb'

export const MAGIC = Buffer.from('sessionkeep stand-in dump, format 1\n')
// No BSON document has this length, so it can end the list of documents. A dump without it was cut off.
export const END = Buffer.from([0xff, 0xff, 0xff, 0xff])

const tool = basename(process.argv[1])

export function giveUp(message) {
	process.stderr.write(`${tool} (stand-in): ${message}\n`)
	process.exit(1)
}

export function say(options, message) {
	if (!options.quiet) {
		process.stderr.write(`${tool} (stand-in): ${message}\n`)
	}
}

export function readOptions(own) {
	// As the real tools have it, `--archive` means stdout or stdin, and `--archive=FILE` a file.
	const args = process.argv.slice(2).map(arg => (arg === '--archive' ? '--archive=' : arg))
	let options
	try {
		options = parseArgs({
			args,
			options: {
				config: { type: 'string' },
				uri: { type: 'string' },
				archive: { type: 'string' },
				gzip: { type: 'boolean', default: false },
				quiet: { type: 'boolean', default: false },
				version: { type: 'boolean', default: false },
				...own
			}
		}).values
	} catch (error) {
		giveUp(`${error.message} (the stand-in knows only what this project's scripts use)`)
	}
	if (options.version) {
		process.stdout.write(`${tool} version: stand-in, not MongoDB's\n`)
		process.exit(0)
	}
	if (options.archive === undefined) {
		giveUp('--archive is missing: the stand-in writes and reads archives only')
	}
	const config = options.config ? readConfig(options.config) : {}
	if (options.uri && config.uri) {
		giveUp('--uri and the `uri` of --config exclude each other')
	}
	options.uri ??= config.uri
	options.password = config.password
	if (!options.uri) {
		giveUp('--uri, or --config with a line `uri: …`, must name the server')
	}
	return options
}

// The real tools take YAML; the scripts write `name: "value"` lines, and that much is read here.
function readConfig(path) {
	const config = {}
	for (const line of readFileSync(path, 'utf8').split('\n').filter(Boolean)) {
		const found = /^(uri|password): *(.+?) *$/.exec(line)
		if (!found) {
			giveUp(`${path} holds a line that is neither \`uri: …\` nor \`password: …\``)
		}
		config[found[1]] = found[2].startsWith('"') ? JSON.parse(found[2]) : found[2]
	}
	return config
}

export async function connected(options, work) {
	const extra = options.password ? { auth: { username: new URL(options.uri).username, password: options.password } } : {}
	const client = new MongoClient(options.uri, { serverSelectionTimeoutMS: 10_000, ...extra })
	try {
		await work(client)
	} catch (error) {
		await client.close().catch(() => {})
		giveUp(`failed: ${error.message}`)
	}
	await client.close()
}
