'use strict'
// Sections, errors, running. A section is a function; what it says is
// compared. An exception that it does not expect is printed as FAIL, and so is
// a section that hangs, which ends the script.

const fs = require('fs')

const sectionTimeout = 30000

// say prints a line; values other than strings as JSON.
function say (...values) {
  fs.writeSync(1, values.map(v => typeof v === 'string' ? v : JSON.stringify(v)).join(' ') + '\n')
}

// refused awaits a promise that must be rejected and prints the SQLSTATE.
async function refused (promise) {
  try {
    await promise
  } catch (e) {
    say('rejected', e.code || e.message)
    return
  }
  say('FAIL: expected an error')
}

async function run (sections) {
  let failed = false
  for (const section of sections) {
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

module.exports = { say, refused, run }
