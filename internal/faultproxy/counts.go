package faultproxy

import (
	"context"
	"sync"
)

// counts is the number of messages per direction and kind.
type counts struct {
	mu      sync.Mutex
	by      [2][256]int
	changed chan struct{} // closed and renewed at each message
}

func newCounts() *counts { return &counts{changed: make(chan struct{})} }

func (c *counts) add(from Direction, kind byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by[from][Any]++
	if kind != Any {
		c.by[from][kind]++
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *counts) get(from Direction, kind byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[from][kind]
}

func (c *counts) wait(ctx context.Context, from Direction, kind byte, n int) error {
	for {
		c.mu.Lock()
		have, changed := c.by[from][kind], c.changed
		c.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
