//go:build race

package drivertest

// raceEnabled says that the proxy is to be built with the race detector, as
// these tests were.
const raceEnabled = true
