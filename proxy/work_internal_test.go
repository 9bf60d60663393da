package proxy

import (
	"testing"
	"unsafe"
)

// What is cleared with each statement must be small.
func TestWorkIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(work{}); size > 1024 {
		t.Errorf("work takes %d bytes", size)
	}
}
