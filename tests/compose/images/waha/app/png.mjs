// A PNG image of black and white squares, made of a text: what stands where the QR code would be.

import { createHash } from 'node:crypto'
import { crc32, deflateSync } from 'node:zlib'

const SQUARES = 29
const PIXELS = 8

function chunk(type, data) {
	const body = Buffer.concat([Buffer.from(type), data])
	const length = Buffer.alloc(4)
	length.writeUInt32BE(data.length)
	const sum = Buffer.alloc(4)
	sum.writeUInt32BE(crc32(body))
	return Buffer.concat([length, body, sum])
}

export function picture(text) {
	const size = SQUARES * PIXELS
	const rows = []
	for (let y = 0; y < size; y++) {
		const bits = createHash('sha256').update(`${text} ${Math.floor(y / PIXELS)}`).digest()
		// Each row begins with its filter, none; then one byte of grey for each pixel.
		const row = Buffer.alloc(size + 1)
		for (let x = 0; x < size; x++) {
			row[x + 1] = bits[Math.floor(x / PIXELS)] & 1 ? 0 : 255
		}
		rows.push(row)
	}
	const header = Buffer.alloc(13)
	header.writeUInt32BE(size, 0)
	header.writeUInt32BE(size, 4)
	header[8] = 8
	return Buffer.concat([
		Buffer.from('89504e470d0a1a0a', 'hex'),
		chunk('IHDR', header),
		chunk('IDAT', deflateSync(Buffer.concat(rows))),
		chunk('IEND', Buffer.alloc(0))
	])
}
