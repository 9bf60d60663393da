//go:build !linux

package pgcluster

// removeSharedMemory does nothing where the segment's limits do not matter
// for the few clusters a developer starts.
func removeSharedMemory(string) {}
