//go:build race

package wire

// Checked is set in builds with the race detector, which look after themselves at some cost: buffers are spoilt when
// they are given back, so that a use after that shows.
const Checked = true
