package exec

import (
	"fmt"
	"strings"

	"shardproxy/wire"
)

// shownBytes is how much of a line or a value the context of an error shows.
const shownBytes = 100

func (r *CopyReader) fail(err *wire.Error) {
	if r.err == nil {
		r.err = err
	}
}

// context names a line as PostgreSQL does; body, when not nil, is shown.
func (r *CopyReader) context(line int64, body []byte) string {
	where := fmt.Sprintf("COPY %s, line %d", r.relation, line)
	if body == nil || !r.d.Printable && !asciiBytes(body) {
		return where
	}
	return where + `: "` + r.shown(body) + `"`
}

// shown cuts a line or value as PostgreSQL does.
func (r *CopyReader) shown(body []byte) string {
	if len(body) <= shownBytes {
		return string(body)
	}
	return string(r.d.clip(body, shownBytes)) + "..."
}

// lineError is an error about a line; see context.
func (r *CopyReader) lineError(line int64, body []byte, message string) *wire.Error {
	return &wire.Error{Code: "22P04", Message: message, Where: r.context(line, body)}
}

// failLine ends the reading at a place in the current line, up to which PostgreSQL has read. The line
// is not complete: PostgreSQL does not show it.
func (r *CopyReader) failLine(at int, message, hint string) {
	inside := r.returns
	if r.d.Format == CopyCSV && r.end == endNewline && r.line > 0 {
		inside = r.newlines
	}
	line := r.line + 1 + inside
	if err := r.encodingError(r.line+1, r.buf[r.pos:at]); err != nil {
		r.fail(err)
		return
	}
	err := r.lineError(line, nil, message)
	err.Hint = hint
	r.fail(err)
}

// encodingError is what PostgreSQL says when the data of a line are not in their encoding; nil
// when they are, or when the server converts them and so has words of its own. start is where the line begins.
func (r *CopyReader) encodingError(start int64, data []byte) *wire.Error {
	if r.d.Converted {
		return nil
	}
	good, bad := r.d.damaged(data)
	if bad == nil {
		return nil
	}
	line := start + r.insideOf(data[:good], start == 1)
	var hex strings.Builder
	for _, c := range bad {
		fmt.Fprintf(&hex, " 0x%02x", c)
	}
	err := wire.Errorf("22021", "invalid byte sequence for encoding %q:%s", strings.ToUpper(r.d.Encoding), hex.String())
	err.Where = r.context(line, nil)
	return err
}

// insideOf counts the line ends inside of quotes in the beginning of a line.
func (r *CopyReader) insideOf(data []byte, first bool) (n int64) {
	if r.d.Format != CopyCSV {
		return 0
	}
	counted := byte('\r')
	if r.end == endNewline && !first {
		counted = '\n'
	}
	quoted := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == r.d.Escape && i+1 < len(data) && (data[i+1] == r.d.Escape || data[i+1] == r.d.Quote):
			i++
		case c == r.d.Quote:
			quoted = !quoted
		case quoted && c == counted:
			n++
		}
	}
	return n
}

// judge sets the fault of the row.
func (r *CopyReader) judge(body []byte, fields int, open bool) {
	row := &r.row
	if len(r.columns) == 0 && len(body) == 0 {
		return
	}
	if !open && fields == len(r.columns) {
		return
	}
	switch err := r.encodingError(row.Line, body); {
	case err != nil:
		row.Fault = err
	case open:
		row.Fault = r.unterminated(body, open)
	case fields > len(r.columns):
		row.Fault = r.lineError(row.LastLine, body, "extra data after last expected column")
	default:
		row.Fault = r.lineError(row.LastLine, body, fmt.Sprintf("missing data for column \"%s\"", r.columns[fields]))
	}
}

// unterminated is the error of a line that ends inside of quotes; nil for others.
func (r *CopyReader) unterminated(body []byte, open bool) *wire.Error {
	if !open {
		return nil
	}
	return r.lineError(r.row.LastLine, body, "unterminated CSV quoted field")
}

func (r *CopyReader) refuseMarker() {
	r.fail(wire.Errorf("0A000", `COPY into a sharded table: versions of PostgreSQL differ in what the marker "\." means here`).
		WithHint("Send the end of the data as the protocol has it (CopyDone), without the marker."))
	r.err.Where = r.context(r.line+1, nil)
}

func (r *CopyReader) tooLong() *wire.Error {
	err := wire.Errorf("54000", "COPY into a sharded table: a row of more than %d bytes", r.limit)
	err.Where = r.context(r.line+1, nil)
	return err
}

// ValueError returns err with the context that PostgreSQL gives to an error about a
// value of the row that Next returned last: what its type's input function says.
// wanted is the value's index in CopyRow.Values.
func (r *CopyReader) ValueError(err *wire.Error, wanted int) *wire.Error {
	c := *err
	v := r.values[wanted]
	name := ""
	for _, w := range r.wanted {
		if w.slot == wanted {
			name = r.columns[w.column]
		}
	}
	c.Where = r.context(r.row.LastLine, nil) + ", column " + name
	switch {
	case r.d.Format == CopyBinary:
	case v.Null:
		c.Where += ": null input"
	case r.d.Printable || asciiBytes(v.Bytes):
		c.Where += `: "` + r.shown(v.Bytes) + `"`
	}
	return &c
}

// RowError returns err with the context that PostgreSQL gives to an error about the row
// that Next returned last.
func (r *CopyReader) RowError(err *wire.Error) *wire.Error {
	c := *err
	body := r.row.Bytes[:len(r.row.Bytes)-r.row.EndBytes]
	if r.d.Format == CopyBinary {
		body = nil
	}
	c.Where = r.context(r.row.LastLine, body)
	return &c
}
