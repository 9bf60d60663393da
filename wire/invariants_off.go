//go:build !race

package wire

// Checked is not set: see the build with the race detector.
const Checked = false
