// Shows what /events tells. No library, no build step; everything that comes from elsewhere is put in
// as text.

const $ = id => document.getElementById(id)
const SVG = 'http://www.w3.org/2000/svg'
const HOUR = 3600_000
const SAMPLE = 10_000
// A QR code is good for about 20 seconds.
const QR_EVERY = 15_000

let status = null
// What the server's clock is ahead of ours.
let ahead = 0
let samples = []
let seen = null
let asked = 0

const now = () => Date.now() + ahead

function element(tag, properties = {}, ...children) {
	const made = Object.assign(document.createElement(tag), properties)
	made.append(...children)
	return made
}

function set(id, text) {
	const place = $(id)
	// Setting the same text again would have a screen reader say it again.
	if (place.textContent !== text) {
		place.textContent = text
	}
}

// What stands between backticks is to be typed.
function words(text) {
	return text.split('`').map((part, n) => n % 2 === 1 ? element('code', { textContent: part }) : part)
}

function span(seconds) {
	if (seconds < 10) return `${seconds.toFixed(1)} s`
	if (seconds < 60) return `${Math.round(seconds)} s`
	if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
	if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
	return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`
}

const since = ms => span(Math.max(0, now() - ms) / 1000)

function size(bytes) {
	const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
	let n = 0
	while (bytes >= 1024 && n < units.length - 1) {
		bytes /= 1024
		n++
	}
	return `${n === 0 ? bytes : bytes.toFixed(1)} ${units[n]}`
}

const clock = ms => new Date(ms).toLocaleString()
// The date only where it is not today's.
const shortly = ms => new Date(ms).toDateString() === new Date(now()).toDateString()
	? new Date(ms).toLocaleTimeString()
	: clock(ms)
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`

// The gateway's word for a session, in ours.
const WORDS = {
	WORKING: ['Logged in', 'good'],
	SCAN_QR_CODE: ['Waiting for the QR code to be scanned', 'wait'],
	STARTING: ['Starting', 'wait'],
	STOPPED: ['Stopped', 'wait'],
	PASSKEY_REQUIRED: ['Waiting for a passkey', 'wait'],
	PASSKEY_CONFIRMATION_REQUIRED: ['Waiting for the passkey to be confirmed on the phone', 'wait'],
	FAILED: ['Failed: it has to be linked again', 'bad']
}
// What is to be done for a number that is not logged in.
const STEPS = {
	PASSKEY_REQUIRED: 'WhatsApp asks for a passkey: go on in WAHA’s dashboard.',
	PASSKEY_CONFIRMATION_REQUIRED: 'Open WhatsApp on the phone and confirm; WAHA’s dashboard shows what to compare.',
	STOPPED: 'Start it in WAHA’s dashboard.',
	FAILED: 'Start it again in WAHA’s dashboard; its QR code then appears here.'
}
const PASSKEY = ['PASSKEY_REQUIRED', 'PASSKEY_CONFIRMATION_REQUIRED']

const openIncidents = () => status.incidents.filter(incident => incident.until_ms === null)
const sessions = () => Object.entries(status.sessions)
const isWaha = () => status.profile === 'waha'

// WAHA's own dashboard, where this page is asked for by its own port; behind a proxy its address is not known here.
function wahaDashboard() {
	const words = 'WAHA’s dashboard'
	if (status.gateway_port === null || location.port === '') return words
	return element('a', { href: `${location.protocol}//${location.hostname}:${status.gateway_port}/dashboard`, textContent: words })
}

function firstStep() {
	const item = element('li')
	const step = element('p')
	item.append(element('p', { className: 'state wait', textContent: 'No number yet' }), step)
	if (status.gateway_pid === null) {
		step.append('They are shown once the gateway runs.')
	} else if (isWaha()) {
		step.append('Add or start a session in ', wahaDashboard(), '. Its QR code then appears here.')
	} else {
		step.append('Link the number in the gateway: most print a QR code into their log.')
	}
	return item
}

function verdict() {
	const serious = openIncidents()
	const lag = status.lag_seconds
	switch (status.state) {
		case 'preflight': return ['wait', 'Starting', 'Looking at what is needed before anything is started.']
		case 'restoring': return ['wait', 'Restoring the login', 'The gateway starts as soon as everything is in place.']
		case 'standby': return ['wait', 'Standing by', 'Another container owns this session. This one takes over when that one ends.']
		case 'fenced': return ['bad', 'This container does not own the session any more', 'The gateway here is being ended, and saves nothing more.']
		case 'stopping': return ['wait', 'Stopping', 'The gateway is being stopped.']
		case 'flushing': return ['wait', 'Saving the last changes', 'The gateway has ended.']
		case 'backoff': return ['wait', 'The gateway ended by itself', 'It is started again after a pause.']
		case 'exited': return ['wait', 'Ended', '']
	}
	if (serious.length > 0) {
		const room = serious[0].kind === 'disk_full' && status.disk ? `${size(status.disk.free_bytes)} of ${size(status.disk.total_bytes)} are free. ` : ''
		return ['bad', serious[0].title, `${room}See below for what to do.`]
	}
	if (status.state === 'starting') return ['wait', 'The gateway is starting', 'The login is in place.']
	if (status.gateway_answers === false) return ['bad', 'The gateway does not answer', 'It runs, and does not answer its probe.']
	const asking = sessions().filter(([, session]) => session.gateway_status === 'SCAN_QR_CODE')
	if (asking.length > 0) {
		const names = asking.map(([, session]) => session.name).join(', ')
		return ['wait', 'A QR code is waiting to be scanned', `Scan it with the phone: ${names}.`]
	}
	const passkeys = sessions().filter(([, session]) => PASSKEY.includes(session.gateway_status))
	if (passkeys.length > 0) {
		const names = passkeys.map(([, session]) => session.name).join(', ')
		return ['wait', 'A passkey is asked for', `To log in: ${names}.`]
	}
	if (isWaha() && !status.sessions_problem) {
		const told = sessions().filter(([, session]) => session.gateway_status)
		const failed = told.filter(([, session]) => session.gateway_status === 'FAILED')
		if (failed.length > 0) {
			const names = failed.map(([, session]) => session.name).join(', ')
			return ['bad', 'A number has to be linked again', `In WAHA’s dashboard: ${names}.`]
		}
		if (told.length === 0 && sessions().length === 0) return ['wait', 'No number is linked yet', 'See below for the next step.']
		if (told.length > 0 && told.every(([, session]) => session.gateway_status === 'STOPPED')) {
			return ['wait', 'Every number is stopped', 'Start one in WAHA’s dashboard.']
		}
	}
	if (status.store === 'none') return ['good', 'The gateway is up', 'File mode: the login is kept in the directory only.']
	if (status.unsaved > 0) return ['bad', `${count(status.unsaved, 'file is', 'files are')} not saved`, `Damaged, or not readable: ${unsavedNames()}. All else is saved.`]
	if (lag > 10) return ['wait', 'Changes are waiting to be saved', `For ${span(lag)}.`]
	return ['good', 'All is well', 'The gateway is up, and everything it wrote is saved.']
}

function incidentItem(incident) {
	const item = element('li')
	const subject = incident.subject ? ` (${incident.subject})` : ''
	item.append(element('h3', { textContent: incident.title + subject }))
	const told = element('p', { className: 'detail' })
	if (incident.until_ms === null) {
		const lasts = element('span', { textContent: `For ${since(incident.since_ms)}` })
		lasts.dataset.since = incident.since_ms
		told.append(lasts, `, since ${clock(incident.since_ms)}: `, ...words(incident.detail))
	} else {
		told.append(`${clock(incident.since_ms)}, over after ${span((incident.until_ms - incident.since_ms) / 1000)}: `, ...words(incident.detail))
	}
	item.append(told)
	if (incident.until_ms === null) {
		item.append(element('p', { className: 'remedy' }, ...words(incident.remedy)))
	}
	return item
}

// Replaces the children only where what they show has changed.
const shown = new Map()
function fill(id, key, make) {
	if (shown.get(id) !== key) {
		shown.set(id, key)
		$(id).replaceChildren(...make())
	}
}

function sessionItem([key, session]) {
	const [words, tone] = WORDS[session.gateway_status] ?? [session.gateway_status ?? (session.files > 0 ? 'Saved' : 'Nothing saved yet'), '']
	const item = element('li', { id: `session-${key}` })
	item.append(element('h3', { textContent: session.name }))
	item.append(element('p', { className: `state ${tone}`, textContent: words }))
	if (session.gateway_status === 'SCAN_QR_CODE') {
		const image = element('img', { alt: `QR code to link the session ${session.name} with the phone`, width: 264, height: 264 })
		image.dataset.session = session.name
		image.addEventListener('error', () => { image.hidden = true })
		image.addEventListener('load', () => { image.hidden = false })
		item.append(image, element('p', { textContent: 'On the phone: WhatsApp, Settings, Linked devices, Link a device.' }))
		item.append(element('p', {}, 'Without a camera: ask for a pairing code in ', wahaDashboard(), ', and on the phone choose “Link with phone number instead”.'))
	} else if (STEPS[session.gateway_status]) {
		item.append(element('p', { textContent: STEPS[session.gateway_status] }))
	}
	if (session.account) {
		item.append(element('p', { textContent: session.account.replace(/@.*/, '') }))
	}
	const changed = session.last_change_ms > 0 ? `, last change ${clock(session.last_change_ms)}` : ''
	const engine = session.engine ? `${session.engine}: ` : ''
	item.append(element('p', { className: 'detail', textContent: `${engine}${count(session.files, 'file', 'files')}, ${size(session.bytes)}${changed}` }))
	return item
}

function refreshCodes() {
	for (const image of document.querySelectorAll('img[data-session]')) {
		image.src = `/sessions/${encodeURIComponent(image.dataset.session)}/qr?t=${Date.now()}`
	}
}

function unsavedNames() {
	const names = status.unsaved_paths.slice(0, 3).map(({ path }) => path).join(', ')
	return status.unsaved > 3 ? `${names} and ${status.unsaved - 3} more` : names
}

function drawSaved() {
	if (status.store === 'none') return set('saved', 'File mode: nothing is saved elsewhere')
	const lag = status.lag_seconds > 0 ? status.lag_seconds + (now() - status.time_ms) / 1000 : 0
	const paths = status.lag_paths === null ? 'Everything' : count(status.lag_paths, 'file', 'files')
	if (lag > 0) return set('saved', `${paths} waiting for ${span(lag)}`)
	if (status.unsaved > 0) return set('saved', `All but ${count(status.unsaved, 'file', 'files')}: ${unsavedNames()}`)
	set('saved', status.head ? `Everything saved ${since(status.head.time_ms)} ago` : 'Nothing to save yet')
}

function draw() {
	const [tone, headline, explanation] = verdict()
	const place = $('verdict')
	if (place.className !== tone) {
		place.className = tone
		place.querySelector('.mark').textContent = { good: '✓', wait: '…', bad: '!' }[tone]
	}
	set('headline', headline)
	set('explanation', explanation)
	document.title = `${tone === 'good' ? '✓' : tone === 'bad' ? '!' : '…'} ${status.archive} · sessionkeep`
	set('archive', `· ${status.archive}`)

	const open = openIncidents()
	$('alarms').hidden = open.length === 0
	fill('open-incidents', JSON.stringify(open), () => open.map(incidentItem))
	const past = status.incidents.filter(incident => incident.until_ms !== null).slice(0, 20)
	fill('incidents', JSON.stringify(past), () => past.length ? past.map(incidentItem) : [element('li', { textContent: 'None.' })])

	const restore = status.restore
	$('restoring').hidden = !restore || status.state !== 'restoring'
	if (restore) {
		$('restore-progress').value = restore.bytes_total > 0 ? restore.bytes / restore.bytes_total : 0
		set('restore-words', `${restore.files} of ${count(restore.files_total, 'file', 'files')}, ${size(restore.bytes)} of ${size(restore.bytes_total)}`)
	}

	$('sessions-problem').hidden = !status.sessions_problem
	fill('sessions-problem', status.sessions_problem, () => words(status.sessions_problem))
	fill('sessions', JSON.stringify([status.sessions, status.gateway_pid === null]), () => {
		const items = sessions().map(sessionItem)
		return items.length ? items : [firstStep()]
	})
	for (const image of document.querySelectorAll('img[data-session]:not([src])')) {
		image.src = `/sessions/${encodeURIComponent(image.dataset.session)}/qr?t=${Date.now()}`
	}

	drawSaved()
	set('head', status.head ? `${status.head.seq}, ${clock(status.head.time_ms)}; ${count(status.files, 'file', 'files')}, ${size(status.bytes)}` : 'None yet')
	// Where it is an incident, its words stand above, once.
	const trouble = open.some(incident => ['store_unreachable', 'writes_refused'].includes(incident.kind)) ? 'see above' : status.problem || 'not asked yet'
	set('store', status.store === 'none' ? 'None (file mode)' : `${status.store}, ${status.store_reachable ? 'answers' : trouble}`)
	const ownership = { none: status.store === 'none' ? 'Not needed in file mode' : 'Not taken yet', held: 'This container owns the session', waiting: 'Another container owns it; this one waits', lost: 'Lost: taken by another container, or ended by hand' }
	set('lease', `${ownership[status.lease]} (${status.instance})`)
	const up = status.gateway_pid === null ? 'Not running' : status.gateway_answers === false ? 'Does not answer' : 'Up'
	const started = status.gateway_started_ms ? `, for ${since(status.gateway_started_ms)}` : ''
	const restarts = status.gateway_restarts ? `, started again ${count(status.gateway_restarts, 'time', 'times')}` : ''
	set('gateway', status.gateway_pid === null ? up : `${up}${started}${restarts} (process ${status.gateway_pid})`)
	set('disk', status.disk ? `${size(status.disk.free_bytes)} of ${size(status.disk.total_bytes)} free` : 'Not looked at yet')
	set('version', `sessionkeep ${status.version}`)

	fill('commits', JSON.stringify(status.minutes), () => status.minutes.length === 0
		? [element('tr', {}, element('td', { colSpan: 4, textContent: 'None since this process was started.' }))]
		: status.minutes.map(minute => element('tr', {},
			element('td', { textContent: minute.commits === 1 ? minute.last_seq : `${minute.first_seq} to ${minute.last_seq}` }),
			element('td', { textContent: shortly(minute.time_ms) }),
			element('td', { textContent: minute.changes }),
			element('td', { textContent: size(minute.bytes) }))))
}

function shape(tag, attributes) {
	const made = document.createElementNS(SVG, tag)
	for (const [name, value] of Object.entries(attributes)) {
		made.setAttribute(name, value)
	}
	return made
}

function chart() {
	const from = now() - HOUR
	const recent = samples.filter(sample => sample.at_ms >= from)
	const x = ms => ((ms - from) / HOUR) * 720
	const most = Math.max(1, ...recent.map(sample => Math.log10(1 + sample.bytes)))
	const longest = Math.max(1, ...recent.map(sample => sample.lag_seconds))
	const shapes = [shape('line', { class: 'axis', x1: 0, y1: 165, x2: 720, y2: 165 })]
	for (const sample of recent) {
		const height = (Math.log10(1 + sample.bytes) / most) * 150
		if (height > 0) {
			shapes.push(shape('rect', { class: 'bar', x: x(sample.at_ms), y: 165 - height, width: 1.8, height }))
		}
	}
	const points = []
	let last = null
	for (const sample of recent) {
		if (last !== null && sample.at_ms - last > SAMPLE) {
			points.push(`${x(last + SAMPLE)},165`, `${x(sample.at_ms)},165`)
		}
		points.push(`${x(sample.at_ms)},${165 - (sample.lag_seconds / longest) * 155}`)
		last = sample.at_ms
	}
	if (points.length > 0) {
		shapes.push(shape('polyline', { class: 'lag', points: points.join(' ') }))
	}
	$('chart').replaceChildren(...shapes)
	const commits = recent.reduce((sum, sample) => sum + sample.commits, 0)
	const bytes = recent.reduce((sum, sample) => sum + sample.bytes, 0)
	const lag = recent.reduce((max, sample) => Math.max(max, sample.lag_seconds), 0)
	set('chart-words', commits + lag === 0
		? 'Nothing was saved in the last hour.'
		: `Bars: what was saved, ${size(bytes)} in ${count(commits, 'version', 'versions')}. Line: how long changes waited, at most ${span(lag)}.`)
}

async function history() {
	try {
		const answer = await fetch('/history')
		if (answer.ok) {
			samples = (await answer.json()).samples
			chart()
		}
	} catch {
		// The stream tells that nobody answers.
	}
}

function listen() {
	const source = new EventSource('/events')
	source.addEventListener('status', event => {
		status = JSON.parse(event.data)
		ahead = status.time_ms - Date.now()
		const head = status.head?.seq ?? 0
		if (seen !== head && Date.now() - asked > SAMPLE / 2) {
			seen = head
			asked = Date.now()
			history()
		}
		set('connection', 'Live')
		draw()
	})
	source.addEventListener('error', () => {
		set('connection', 'No answer; trying again …')
		// The browser tries again by itself, except after an answer that is no stream.
		if (source.readyState === EventSource.CLOSED) {
			setTimeout(listen, 3000)
		}
	})
}

// Between two events time goes on.
setInterval(() => {
	if (!status) return
	drawSaved()
	for (const lasts of document.querySelectorAll('[data-since]')) {
		lasts.textContent = `For ${since(Number(lasts.dataset.since))}`
	}
}, 1000)
setInterval(() => { if (status) { chart(); refreshCodes() } }, QR_EVERY)
listen()
