//go:build race

package wire

// spoils is set where buffers are spoilt when they are given back, so that a
// use after that shows: see Buffers.
const spoils = true
