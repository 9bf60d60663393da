package wire

// Tee keeps a copy of what a Conn is given to send.
type Tee struct {
	// Max bounds the copy, in bytes; with more it is dropped, and Over set.
	Max  int
	Over bool
	// Bytes is the copy.
	Bytes []byte
	// First is called once, with the first byte; nil: nothing is.
	First func()
}

// Tee has what is queued from now on copied to t; nil ends that.
func (c *Conn) Tee(t *Tee) { c.tee = t }

// given notes the output, which had so many bytes before.
func (t *Tee) given(out []byte, had int) {
	if len(out) >= had {
		t.add(out[had:])
		return
	}
	if gone := had - len(out); !t.Over && gone <= len(t.Bytes) {
		t.Bytes = t.Bytes[:len(t.Bytes)-gone]
	} else {
		t.Over, t.Bytes = true, nil
	}
}

func (t *Tee) add(p []byte) {
	if t.First != nil && len(p) > 0 {
		t.First()
		t.First = nil
	}
	switch {
	case t.Over:
	case len(t.Bytes)+len(p) > t.Max:
		t.Over, t.Bytes = true, nil
	default:
		t.Bytes = append(t.Bytes, p...)
	}
}
