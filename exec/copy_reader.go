package exec

import (
	"bytes"
	"cmp"
	"slices"

	"shardproxy/wire"
)

// DefaultRowBytes is the largest row that a CopyReader takes unless told otherwise;
// MaxRowBytes is PostgreSQL's own limit.
const (
	DefaultRowBytes = 64 << 20
	MaxRowBytes     = 1<<30 - 1
)

// keptBytes is how large a buffer is kept for the next row.
const keptBytes = 1 << 20

// CopyReaderOptions says what a CopyReader reads.
type CopyReaderOptions struct {
	Dialect *CopyDialect
	// Relation is the table's name without its schema, for the context of errors.
	Relation string
	// Columns are the columns that the data have: the statement's list, or all
	// of the table but dropped and generated ones.
	Columns []string
	// Wanted are positions in Columns whose values are to be read, in any order.
	Wanted []int
	// RowBytes bounds a row, 0 for DefaultRowBytes; at most MaxRowBytes. A
	// reader's memory is about three times that when such rows come.
	RowBytes int
}

// CopyValue is what PostgreSQL would hand to the input function of a column's type,
// or in the binary format to its receive function. At most one flag is set.
type CopyValue struct {
	// Bytes is in the data's encoding, which is the server's: a wanted value with
	// characters that the server would convert is refused.
	Bytes []byte
	// Null is set for NULL, Default where the marker for the column's default stands,
	// Missing where the row has no such column (see CopyRow.Fault).
	Null, Default, Missing bool
}

// CopyRow is one row. All of it is valid until the reader's next call.
type CopyRow struct {
	// Bytes is the row as it came, with its line end: the last EndBytes bytes.
	Bytes    []byte
	EndBytes int
	// Line is the client's line on which the row begins, LastLine the one on which it ends,
	// as PostgreSQL counts: LastLine is what it names in the context of an error.
	Line, LastLine int64
	// Values holds the wanted columns, in the order of Wanted.
	Values []CopyValue
	// Fault is set when PostgreSQL is sure to refuse the row, and is what it says
	// if it has nothing to say of the columns before the fault. Sent to a shard
	// the row makes it say what a single server would have said; no later row may then be sent.
	Fault *wire.Error

	newlines, returns int64 // line ends inside of quotes
	end               lineEnd
	loneBackslash     bool // text ends in a backslash that escapes nothing
}

type lineEnd uint8

const (
	endUnknown lineEnd = iota
	endNewline
	endReturn
	endBoth
)

type wantedColumn struct {
	column, slot            int
	forceNull, forceNotNull bool
}

// CopyReader cuts the data of a COPY FROM STDIN into rows:
//
//	for each CopyData: r.Feed(body); for { row, err := r.Next(); row == nil: break; ... }
//	at CopyDone:       r.Finish();   the same loop once more
//
// Data may be cut anywhere. Next allocates nothing in the long run.
type CopyReader struct {
	d        *CopyDialect
	relation string
	columns  []string
	wanted   []wantedColumn
	limit    int

	buf, own []byte // own is the reader's memory, buf that or the caller's
	pos      int    // where the current row begins in buf
	finished bool   // no more data come
	ended    bool   // the end of the rows has been seen
	err      *wire.Error
	end      lineEnd
	line     int64 // lines before pos
	opened   bool  // the header is behind us
	skip     int64 // bytes of the binary header's extension still to come

	// What is known of the row at pos, from scanned bytes of it.
	scanned       int
	quoted        bool // inside of quotes there
	special       bool // it has a backslash (text) or a quote (CSV)
	delimiters    int  // in CSV, outside of quotes; in text, those that are escaped
	fields        int  // binary: fields that are complete
	newlines      int64
	returns       int64
	loneBackslash bool

	// The next newline, carriage return, backslash or quote, escape in buf; found
	// lazily: right when not before the place that is asked for.
	at [4]int

	row     CopyRow
	values  []CopyValue
	scratch []byte
}

// NewCopyReader returns a reader at the start of the data.
func NewCopyReader(o CopyReaderOptions) *CopyReader {
	r := &CopyReader{d: o.Dialect, relation: o.Relation, columns: o.Columns, limit: o.RowBytes,
		values: make([]CopyValue, len(o.Wanted))}
	if r.limit <= 0 {
		r.limit = DefaultRowBytes
	}
	r.limit = min(r.limit, MaxRowBytes)
	r.opened = r.d.Format != CopyBinary && r.d.Header == CopyHeaderNone
	for slot, column := range o.Wanted {
		name := o.Columns[column]
		r.wanted = append(r.wanted, wantedColumn{column: column, slot: slot,
			forceNull:    r.d.ForceNullAll || slices.Contains(r.d.ForceNull, name),
			forceNotNull: r.d.ForceNotNullAll || slices.Contains(r.d.ForceNotNull, name)})
	}
	slices.SortFunc(r.wanted, func(a, b wantedColumn) int { return cmp.Compare(a.column, b.column) })
	r.forget()
	return r
}

// forget drops what was found in a buffer that is no more.
func (r *CopyReader) forget() { r.at = [4]int{-1, -1, -1, -1} }

// Feed takes the body of a CopyData message, or a piece of one. It must not change until Next
// has returned no row; then the reader has copied what it still needs.
func (r *CopyReader) Feed(data []byte) {
	switch {
	case r.err != nil || len(data) == 0:
	case r.ended:
		if r.d.Format == CopyBinary {
			r.fail(r.lineError(r.line+1, nil, "received copy data after EOF marker"))
		}
	case r.pos == len(r.buf):
		r.buf, r.pos = data, 0
		r.forget()
	default:
		r.carry() // of data that Next was not asked for
		r.own = append(r.own, data...)
		r.buf = r.own
		r.forget()
	}
}

// Finish says that all data have come (CopyDone).
func (r *CopyReader) Finish() { r.finished = true }

// Ended reports whether the end of the rows has been seen: the end of the data, or a marker.
// What comes behind a marker is ignored.
func (r *CopyReader) Ended() bool { return r.ended }

// Next returns the next row. A nil row means that more data, or Finish, are
// needed; after Finish, that there are no more rows. The error is a *wire.Error,
// PostgreSQL's own where it has one; it is returned again by every later call.
func (r *CopyReader) Next() (*CopyRow, error) {
	if r.err != nil {
		return nil, r.err
	}
	for !r.ended {
		more, row := false, false
		switch {
		case r.d.Format == CopyBinary:
			more, row = r.nextTuple()
		default:
			more, row = r.nextLine()
		}
		if r.err != nil {
			return nil, r.err
		}
		if row {
			return &r.row, nil
		}
		if more {
			r.carry()
			if len(r.buf)-r.pos > r.limit {
				r.fail(r.tooLong())
				return nil, r.err
			}
			return nil, nil
		}
	}
	r.buf, r.own, r.pos = nil, nil, 0
	return nil, nil
}

// carry copies the beginning of a row into the reader's own memory.
func (r *CopyReader) carry() {
	rest := r.buf[r.pos:]
	if len(rest) == 0 {
		r.buf, r.pos = nil, 0
		r.forget()
		if cap(r.own) > keptBytes {
			r.own = nil
		}
		return
	}
	if r.pos == 0 && len(r.own) == len(rest) && &r.own[0] == &rest[0] {
		return
	}
	if cap(r.own) > keptBytes && len(rest) < keptBytes {
		r.own = nil
	}
	r.own = append(r.own[:0], rest...)
	r.buf, r.pos = r.own, 0
	r.forget()
}

// find returns the place of the next c in buf that is not before from, the
// buffer's length when there is none. which numbers what is looked for.
func (r *CopyReader) find(which, from int, c byte) int {
	if at := r.at[which]; at >= from {
		return at
	}
	return r.search(which, from, c)
}

func (r *CopyReader) search(which, from int, c byte) int {
	at := bytes.IndexByte(r.buf[from:], c)
	if at < 0 {
		at = len(r.buf)
	} else {
		at += from
	}
	r.at[which] = at
	return at
}

// The numbers of what find looks for.
const (
	findNewline = iota
	findReturn
	findSpecial // a backslash in text, a quote in CSV
	findEscape
)

// nextLine reads a line of text or CSV. more says that it is not all there.
func (r *CopyReader) nextLine() (more, isRow bool) {
	stop, size, ok := 0, 0, false
	if r.d.Format == CopyCSV {
		stop, size, ok = r.csvEnd()
	} else {
		stop, size, ok = r.textEnd()
	}
	switch {
	case r.err != nil:
		return false, false
	case !ok:
		return true, false
	case size == 0: // the end of the data, or a marker
		r.ended = true
		if stop == r.pos && r.opened {
			return false, false
		}
	}
	r.takeLine(stop, size)
	if !r.opened {
		r.opened = true
		r.checkHeader()
		return false, false
	}
	return false, true
}

// takeLine makes the line from pos to stop the row, and the place behind it pos.
func (r *CopyReader) takeLine(stop, size int) {
	row := &r.row
	if r.buf == nil {
		r.buf = []byte{} // an empty header, at the end of no data
	}
	body := r.buf[r.pos:stop]
	row.Bytes, row.EndBytes, row.Fault = r.buf[r.pos:stop+size], size, nil
	row.newlines, row.returns, row.loneBackslash, row.end = r.newlines, r.returns, r.loneBackslash, r.end
	row.Line = r.line + 1
	if len(row.Bytes) > r.limit {
		r.fail(r.tooLong())
		return
	}
	fields, special, open := 0, r.special, r.quoted
	if r.d.Format == CopyCSV {
		fields = r.delimiters + 1
	} else {
		fields = bytes.Count(body, []byte{r.d.Delimiter}) - r.delimiters + 1
	}
	r.pos = stop + size
	r.scanned, r.quoted, r.special, r.delimiters = 0, false, false, 0
	r.newlines, r.returns, r.loneBackslash = 0, 0, false
	row.LastLine = row.Line + row.inside(r.line == 0)
	r.line = row.LastLine
	if !r.opened {
		r.row.Fault = r.unterminated(body, open)
		return
	}
	r.judge(body, fields, open)
	r.readValues(body, fields, special)
}

// inside counts the line ends inside of quotes as a server does. On the first line that
// it reads it does not know yet how lines end, and counts carriage returns.
func (row *CopyRow) inside(first bool) int64 {
	if row.end == endNewline && !first {
		return row.newlines
	}
	return row.returns
}
