package shardmap

import "fmt"

// Bounds of a map's number of slots.
const (
	DefaultSlots = 4096    // what a map has unless its creator says otherwise
	MaxSlots     = 1 << 16 // so that a slot fits in 16 bits
)

// Slot is a bucket of hashes, from 0: the unit of placement and of a move.
type Slot uint16

// SlotOf returns the slot of a hash among n, which CheckSlots has accepted. In
// SQL it is hash & (n - 1).
func SlotOf(hash uint64, n int) Slot { return Slot(hash & uint64(n-1)) }

// CheckSlots returns an error unless n is a power of two from 1 to MaxSlots.
func CheckSlots(n int) error {
	if n < 1 || n > MaxSlots || n&(n-1) != 0 {
		return fmt.Errorf("%d slots: want a power of two from 1 to %d", n, MaxSlots)
	}
	return nil
}

// SchemaHash returns the hash of a schema's name, for schemas that are placed
// as a whole: hashtextextended(name, 0). name is as pg_namespace has it, folded
// and without quotes.
func SchemaHash(name string) uint64 {
	// Names are below 64 bytes, so that the copy stays on the stack.
	var buf [64]byte
	return hashBytes(append(buf[:0], name...))
}
