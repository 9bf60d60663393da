//go:build !race

package shardmap

// raceEnabled tells tests that count allocations to stand aside.
const raceEnabled = false
