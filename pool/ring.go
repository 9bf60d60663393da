package pool

import (
	"io"
	"sync"
)

// Sizes of the blocks that an answer is read in, in bytes. The first is small, for most
// answers are.
const (
	blockSize      = 64 << 10
	firstBlockSize = 8 << 10
	blocksMax      = 4
)

// block is a buffer that one goroutine fills while another reads what is whole in it.
type block struct {
	data []byte

	// Guarded by ring.mu. data[from:to] are frames that nobody has taken yet; what lies
	// behind them is the filling side's alone.
	from, to int
	queued   bool // in ring.filled, or was
	sealed   bool // nothing is added any more
}

// ring carries blocks of frames from the goroutine that reads them to the one that
// uses them, and the blocks back. Each side is one goroutine.
type ring struct {
	ready chan struct{} // a token when take would not wait; closed when finished
	space chan struct{} // a token when a block has come back, or none is wanted any more

	mu       sync.Mutex
	filled   []*block // oldest first; only the last may be unsealed
	free     []*block
	made     int    // how many of blockSize there are
	large    *block // the one that is larger; nil until one is needed
	largeOut bool
	held     *block // a larger one that has been taken
	finished bool
	dropping bool  // nobody takes any more
	err      error // what take returns in the end
}

func newRing() *ring {
	return &ring{ready: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// take waits for frames and returns all that are whole in the oldest block, or the error
// of finish. They are the caller's until the next call.
func (r *ring) take() ([]byte, error) {
	for {
		r.mu.Lock()
		frames, err := r.takeLocked()
		r.mu.Unlock()
		if frames != nil || err != nil {
			return frames, err
		}
		<-r.ready
	}
}

func (r *ring) takeLocked() ([]byte, error) {
	for len(r.filled) > 0 {
		b := r.filled[0]
		if b.from < b.to {
			frames := b.data[b.from:b.to:b.to]
			if b.from = b.to; b == r.large {
				// Who has it may wait for more before giving it back: another is made then.
				r.held, r.large, r.largeOut = b, nil, false
				r.yieldLocked()
			}
			r.tellLocked()
			return frames, nil
		}
		if !b.sealed {
			break
		}
		r.recycleLocked(b)
		r.filled = append(r.filled[:0], r.filled[1:]...)
	}
	if r.finished {
		return nil, r.err
	}
	r.tellLocked()
	return nil, nil
}

// tellLocked has a token in ready exactly when there is something to take.
func (r *ring) tellLocked() {
	switch {
	case r.finished: // it is closed
	case len(r.filled) > 1 || len(r.filled) == 1 && r.filled[0].from < r.filled[0].to:
		select {
		case r.ready <- struct{}{}:
		default:
		}
	default:
		select {
		case <-r.ready:
		default:
		}
	}
}

func (r *ring) recycleLocked(b *block) {
	if b == r.held {
		if r.held = nil; r.large == nil {
			r.large = b
		}
	} else if len(b.data) == blockSize {
		b.queued, b.sealed = false, false
		r.free = append(r.free, b)
	}
	r.yieldLocked()
}

func (r *ring) yieldLocked() {
	select {
	case r.space <- struct{}{}:
	default:
	}
}

// publish makes the frames in b up to to ones that can be taken; more may follow in b
// unless sealed. When nobody takes any more it does nothing.
func (r *ring) publish(b *block, to int, sealed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropping || r.finished {
		return
	}
	if !b.queued && to > 0 {
		b.queued, b.from, b.to = true, 0, 0
		r.filled = append(r.filled, b)
	}
	b.to, b.sealed = max(b.to, to), sealed
	r.tellLocked()
}

// fresh waits for an empty block; nil when nobody takes any more.
func (r *ring) fresh() (b *block) {
	r.await(func() bool {
		if n := len(r.free); n > 0 {
			b, r.free = r.free[n-1], r.free[:n-1]
		} else if r.made < blocksMax {
			r.made++
			b = &block{data: make([]byte, blockSize)}
		}
		return b != nil
	})
	return b
}

// freshLarge waits for the block of larger messages, and makes it one of size bytes; nil
// when nobody takes any more.
func (r *ring) freshLarge(size int) (b *block) {
	r.await(func() bool {
		if r.largeOut {
			return false
		}
		if r.large == nil || cap(r.large.data) < size {
			r.large = &block{data: make([]byte, size)}
		}
		r.large.data = r.large.data[:size]
		r.large.queued, r.large.sealed, r.largeOut = false, false, true
		b = r.large
		return true
	})
	return b
}

// await calls try, under the lock, until it says true or nobody takes any more.
func (r *ring) await(try func() bool) {
	for {
		r.mu.Lock()
		done := r.dropping || r.finished || try()
		r.mu.Unlock()
		if done {
			return
		}
		<-r.space
	}
}

// finish says what take returns behind the frames: io.EOF for nil. Only the first call counts.
func (r *ring) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	if err == nil {
		err = io.EOF
	}
	r.finished, r.err = true, err
	close(r.ready)
}

// discard says that nobody takes any more.
func (r *ring) discard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropping, r.filled, r.free = true, nil, nil
	r.yieldLocked()
}
