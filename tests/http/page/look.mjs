// Looks at the dashboard in a real browser. One command a line on standard input, one answer a line:
// `ok`, or what is wrong.

import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const PATIENCE = 30_000
const VIEWS = [
	['desktop', { width: 1280, height: 900 }, 'light'],
	['desktop-dark', { width: 1280, height: 900 }, 'dark'],
	['phone', { width: 390, height: 844 }, 'light'],
	['phone-dark', { width: 360, height: 740 }, 'dark']
]

const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
const context = await browser.newContext({
	viewport: VIEWS[0][1],
	httpCredentials: { username: process.env.USER_NAME, password: process.env.PASSWORD }
})
const page = await context.newPage()
const errors = []
page.on('console', message => {
	// A code that is scanned while the page asks for it is none any more.
	const scanned = message.location().url?.includes('/qr?') && message.text().includes(' 404 ')
	if (message.type() === 'error' && !scanned) errors.push(message.text())
})
page.on('pageerror', error => errors.push(String(error)))
page.on('requestfailed', request => {
	// A stream ends when the page is left.
	if (!request.url().endsWith('/events')) errors.push(`${request.url()}: ${request.failure()?.errorText}`)
})

async function accessible(view) {
	// Its own script is let in by the debugger, past the page's policy.
	await page.evaluate(axe)
	const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
	if (violations.length > 0) {
		const told = violations.map(of => `${of.id}: ${of.nodes.map(node => node.target.join(' ')).join(', ')}`)
		throw new Error(`${view}: ${told.join('; ')}`)
	}
}

const commands = {
	async open(url) {
		await page.goto(url)
	},
	async see(text) {
		await page.waitForFunction(wanted => document.body.innerText.includes(wanted), text, { timeout: PATIENCE })
	},
	async gone(text) {
		await page.waitForFunction(unwanted => !document.body.innerText.includes(unwanted), text, { timeout: PATIENCE })
	},
	// It stands there once, and not in several places.
	async once(text) {
		await commands.see(text)
		const times = await page.evaluate(wanted => document.body.innerText.split(wanted).length - 1, text)
		if (times !== 1) throw new Error(`it stands there ${times} times`)
	},
	async link(end) {
		await page.waitForFunction(wanted => document.querySelector(`a[href$="${wanted}"]`), end, { timeout: PATIENCE })
	},
	async rows(most) {
		const rows = await page.evaluate(() => document.querySelectorAll('#commits tr').length)
		if (rows > Number(most)) throw new Error(`${rows} rows`)
	},
	async code() {
		await page.waitForFunction(() => {
			const image = document.querySelector('img[data-session]')
			return image && image.complete && image.naturalWidth > 100 && image.alt.length > 10
		}, undefined, { timeout: PATIENCE })
	},
	async look(name) {
		for (const [view, size, colorScheme] of VIEWS) {
			await page.setViewportSize(size)
			await page.emulateMedia({ colorScheme })
			const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
			if (content > window) throw new Error(`${view}: the page is ${content} wide, and the window ${window}`)
			const cut = await page.evaluate(() => [...document.querySelectorAll('.scroll')].filter(of => of.scrollWidth > of.clientWidth).length)
			if (cut > 0) throw new Error(`${view}: a table is cut off`)
			await accessible(view)
			await page.screenshot({ path: join(process.env.SHOTS, `${name}-${view}.png`), fullPage: true })
		}
	},
	// The first stop of the Tab key leads past everything to the content.
	async keyboard() {
		await page.evaluate(() => document.activeElement?.blur())
		await page.keyboard.press('Tab')
		const first = await page.evaluate(() => document.activeElement?.getAttribute('href'))
		if (first !== '#main') throw new Error(`the first stop is ${first}`)
		await page.keyboard.press('Enter')
		const then = await page.evaluate(() => document.activeElement?.id)
		if (then !== 'main') throw new Error(`it leads to ${then}`)
	},
	async quiet() {
		if (errors.length > 0) throw new Error(errors.join('; '))
	}
}

for await (const line of createInterface({ input: process.stdin })) {
	const [command, ...rest] = line.split(' ')
	try {
		await commands[command](rest.join(' '))
		console.log('ok')
	} catch (error) {
		const words = await page.evaluate(() => document.body.innerText).catch(() => '')
		console.log(`${line}: ${error.message} | ${words}`.replaceAll('\n', ' '))
	}
}
await browser.close()
