//go:build race

package clientrun

// RaceEnabled says whether this test runs with the race detector; the proxy
// that it builds should then have it too.
const RaceEnabled = true
