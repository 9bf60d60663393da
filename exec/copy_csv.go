package exec

import "bytes"

// csvEnd is textEnd for CSV. It counts delimiters outside of quotes, and line
// ends inside of them.
func (r *CopyReader) csvEnd() (stop, size int, ok bool) {
	at := r.pos + r.scanned
	if r.scanned == 0 && r.d.Version < 18 {
		switch isEnd, known := r.csvMarker(); {
		case r.err != nil || !known:
			return 0, 0, false
		case isEnd:
			return r.pos, 0, true
		}
	}
	for {
		if r.quoted {
			if at, ok = r.quotedEnd(at); !ok {
				if r.finished {
					return len(r.buf), 0, true
				}
				r.scanned = at - r.pos
				return 0, 0, false
			}
			if at = r.reopen(at); r.quoted {
				continue
			}
		}
		newline := r.find(findNewline, at, '\n')
		cr := r.find(findReturn, at, '\r')
		quote := r.find(findSpecial, at, r.d.Quote)
		first := min(newline, cr, quote)
		counted := r.delimiters
		r.delimiters += bytes.Count(r.buf[at:first], []byte{r.d.Delimiter})
		switch {
		case first == len(r.buf):
			if r.finished {
				return first, 0, true
			}
			r.scanned = first - r.pos
			return 0, 0, false
		case first == newline:
			return r.endAtNewline(newline)
		case first == cr:
			r.scanned = at - r.pos
			if stop, size, ok = r.endAtReturn(cr); !ok {
				r.scanned, r.delimiters = at-r.pos, counted // once more when the next byte is there
			}
			return stop, size, ok
		}
		r.special, r.quoted = true, true
		at = quote + 1
	}
}

// reopen looks at what most often stands behind a closing quote: one that opens at once, alone or
// behind a delimiter. It only saves time.
func (r *CopyReader) reopen(at int) int {
	switch next := r.buf[at:min(at+2, len(r.buf))]; {
	case len(next) > 0 && next[0] == r.d.Quote:
		r.quoted = true
		return at + 1
	case len(next) > 1 && next[0] == r.d.Delimiter && next[1] == r.d.Quote:
		r.quoted = true
		r.delimiters++
		return at + 2
	}
	return at
}

// quotedEnd returns the place behind the quote that ends the quoted part at from.
// ok is false when it is not there; at is then how far has been looked.
func (r *CopyReader) quotedEnd(from int) (at int, ok bool) {
	at = from
	for {
		quote := r.find(findSpecial, at, r.d.Quote)
		if r.d.Escape != r.d.Quote {
			if escape := r.find(findEscape, at, r.d.Escape); escape < quote {
				c, known := r.byteAt(escape + 1)
				if !known {
					r.countInside(from, escape)
					return escape, false
				}
				at = escape + 1
				if at < len(r.buf) && (c == r.d.Quote || c == r.d.Escape) {
					at++
				}
				continue
			}
		}
		r.countInside(from, quote)
		if quote == len(r.buf) {
			return quote, false
		}
		r.quoted = false
		return quote + 1, true
	}
}

// countInside counts the line ends in a piece of a quoted part.
func (r *CopyReader) countInside(from, to int) {
	if r.find(findNewline, from, '\n') < to {
		r.newlines += int64(bytes.Count(r.buf[from:to], []byte{'\n'}))
	}
	if r.find(findReturn, from, '\r') < to {
		r.returns += int64(bytes.Count(r.buf[from:to], []byte{'\r'}))
	}
}

// csvMarker looks for the end-of-copy marker that PostgreSQL 15 to 17 know in CSV: alone on
// its line. For 18 it is data. known is false when it is not all there.
func (r *CopyReader) csvMarker() (isEnd, known bool) {
	next := r.pos
	for _, want := range []byte{'\\', '.'} {
		if c, there := r.byteAt(next); !there || c != want {
			return false, there
		}
		next++
	}
	c, there := r.byteAt(next)
	if r.end == endBoth && there {
		if c != '\r' {
			return false, true
		}
		c, there = r.byteAt(next + 1)
	}
	switch {
	case !there:
		return false, false
	case c != '\r' && c != '\n':
		return false, true
	case r.d.Version == 0 || r.d.Quote == '\\':
		r.refuseMarker()
	case !r.endsLike(c):
		r.failLine(next, markerMismatch, "")
	default:
		return true, true
	}
	return false, false
}
