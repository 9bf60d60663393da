package exec

// textEnd finds the end of the line that begins at pos: the place behind its data and the size
// of its line end, 0 at the end of the data. ok is false when it is not there yet.
func (r *CopyReader) textEnd() (stop, size int, ok bool) {
	at := r.pos + r.scanned
	for {
		newline := r.find(findNewline, at, '\n')
		cr := r.find(findReturn, at, '\r')
		backslash := r.find(findSpecial, at, '\\')
		switch first := min(newline, cr, backslash); {
		case first == len(r.buf):
			if r.finished {
				return first, 0, true
			}
			r.scanned = first - r.pos
			return 0, 0, false
		case first == newline:
			return r.endAtNewline(newline)
		case first == cr:
			return r.endAtReturn(cr)
		}
		r.special = true
		if backslash+1 == len(r.buf) {
			if r.loneBackslash = r.finished; r.finished {
				return backslash + 1, 0, true
			}
			r.scanned = backslash - r.pos
			return 0, 0, false
		}
		switch r.buf[backslash+1] {
		case '.':
			if stop, ok = r.textMarker(backslash); !ok {
				r.scanned = backslash - r.pos
			}
			return stop, 0, ok
		case r.d.Delimiter:
			r.delimiters++
		}
		at = backslash + 2
	}
}

// endAtNewline ends the line at a newline that nothing escapes or quotes.
func (r *CopyReader) endAtNewline(at int) (stop, size int, ok bool) {
	if r.end == endReturn || r.end == endBoth {
		message, hint := "literal newline found in data", `Use "\n" to represent newline.`
		if r.d.Format == CopyCSV {
			message, hint = "unquoted newline found in data", "Use quoted CSV field to represent newline."
		}
		r.failLine(at, message, hint)
		return 0, 0, false
	}
	r.end = endNewline
	return at, 1, true
}

// endAtReturn ends the line at such a carriage return.
func (r *CopyReader) endAtReturn(at int) (stop, size int, ok bool) {
	if r.end == endUnknown || r.end == endBoth {
		c, known := r.byteAt(at + 1)
		switch {
		case !known:
			r.scanned = at - r.pos
			return 0, 0, false
		case c == '\n':
			r.end = endBoth
			return at, 2, true
		case r.end == endUnknown:
			r.end = endReturn
		}
	}
	if r.end != endReturn {
		message, hint := "literal carriage return found in data", `Use "\r" to represent carriage return.`
		if r.d.Format == CopyCSV {
			message, hint = "unquoted carriage return found in data", "Use quoted CSV field to represent carriage return."
		}
		r.failLine(at, message, hint)
		return 0, 0, false
	}
	return at, 1, true
}

// byteAt returns a byte of buf; behind the end of the data it is 0, as in PostgreSQL's
// buffer. known is false when it has not come yet.
func (r *CopyReader) byteAt(at int) (c byte, known bool) {
	if at < len(r.buf) {
		return r.buf[at], true
	}
	return 0, r.finished
}

// textMarker reads the end-of-copy marker whose backslash is at a place. ok is false
// when it is not all there, or wrong.
func (r *CopyReader) textMarker(at int) (stop int, ok bool) {
	next := at + 2
	corrupt := "end-of-copy marker corrupt"
	if r.d.Version >= 18 {
		corrupt = "end-of-copy marker is not alone on its line"
	}
	c, known := r.byteAt(next)
	if r.end == endBoth && known {
		switch c {
		case '\n':
			r.failLine(at, markerMismatch, "")
			return 0, false
		case '\r':
			next++
			c, known = r.byteAt(next)
		default:
			r.failLine(r.behind(next), corrupt, "")
			return 0, false
		}
	}
	switch {
	case !known:
		return 0, false
	case c != '\r' && c != '\n':
		r.failLine(r.behind(next), corrupt, "")
	case !r.endsLike(c):
		r.failLine(at, markerMismatch, "")
	case at > r.pos && r.d.Version >= 18:
		r.failLine(at, corrupt, "")
	case at > r.pos && r.d.Version == 0:
		r.refuseMarker()
	default:
		return at, true
	}
	return 0, false
}

// behind returns the place behind a character that PostgreSQL has to read, and so finds it not to be in
// its encoding before it finds anything else.
func (r *CopyReader) behind(at int) int {
	if at >= len(r.buf) {
		return len(r.buf)
	}
	end := at + sequenceLength(r.buf[at])
	if end > len(r.buf) && !r.finished {
		return at
	}
	return min(end, len(r.buf))
}

const markerMismatch = "end-of-copy marker does not match previous newline style"

// endsLike says whether c, the last byte of a marker's line end, is that of the lines before.
func (r *CopyReader) endsLike(c byte) bool {
	return r.end == endUnknown || (c == '\r') == (r.end == endReturn)
}
