'use strict'
// What the two Node.js scripts share: sections, errors, running. A section is
// a function; what it says is compared. An exception that it does not expect
// is printed as FAIL, and so is a section that hangs, which ends the script.

const crypto = require('crypto')
const fs = require('fs')

const sectionTimeout = 30000
const big = 16 * 1024 * 1024

// say prints a line; values other than strings as JSON.
function say (...values) {
  const line = values.map(v => typeof v === 'string' ? v : JSON.stringify(v, (_, x) =>
    typeof x === 'bigint' ? x + 'n' : x)).join(' ')
  fs.writeSync(1, line + '\n')
}

const md5 = data => crypto.createHash('md5').update(data).digest('hex')

const fields = ['severity', 'message', 'detail', 'hint', 'position', 'where', 'schema', 'table', 'column', 'dataType', 'constraint',
  'schema_name', 'table_name', 'column_name', 'constraint_name']

// refused awaits a promise that must be rejected and prints how.
async function refused (promise) {
  let value
  try {
    value = await promise
  } catch (e) {
    say('error', e.code || '-', fields.filter(f => e[f] !== undefined).map(f => f + ': ' + e[f]).join(', '))
    return
  }
  say('FAIL: expected an error, got', value)
}

async function run (sections) {
  const only = process.argv.slice(2)
  let failed = false
  for (const section of sections) {
    if (only.length && !only.includes(section.name)) continue
    say('== ' + section.name)
    const timer = setTimeout(() => {
      say('FAIL: it hung')
      process.exit(1)
    }, sectionTimeout)
    try {
      await section()
    } catch (e) {
      failed = true
      say('FAIL: ' + (e && e.stack))
    }
    clearTimeout(timer)
  }
  process.exit(failed ? 1 : 0)
}

const ssl = () => ({ ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8'), rejectUnauthorized: true })
const wrongSSL = () => ({ ca: fs.readFileSync(process.env.WRONG_CA, 'utf8'), rejectUnauthorized: true })
const nodePorts = process.env.NODE_PORTS.split(' ').map(Number)
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

module.exports = { say, md5, refused, run, ssl, wrongSSL, nodePorts, sleep, big }
