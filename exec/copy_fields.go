package exec

import (
	"bytes"

	"shardproxy/wire"
)

// readValues reads the wanted columns of a line. special says whether it has a
// backslash (text) or a quote (CSV).
func (r *CopyReader) readValues(body []byte, fields int, special bool) {
	r.scratch = r.scratch[:0]
	if cap(r.scratch) > keptBytes {
		r.scratch = nil
	}
	column, at := 0, 0
	for _, w := range r.wanted {
		v := &r.values[w.slot]
		if *v = (CopyValue{}); w.column >= fields {
			v.Missing = true
			continue
		}
		for ; column < w.column; column++ {
			end, next := r.fieldEnd(body, at, special)
			if at = next; next < 0 {
				at = end
			}
		}
		end, next := r.fieldEnd(body, at, special)
		r.readValue(v, body[at:end], w, special)
		column++
		if at = next; next < 0 {
			at = end
		}
	}
	r.row.Values = r.values
}

// fieldEnd returns where the field that begins at a place ends, and where the
// next one begins, -1 when there is none. A last backslash that escapes nothing is not part of it.
func (r *CopyReader) fieldEnd(body []byte, at int, special bool) (end, next int) {
	if special {
		if r.d.Format == CopyCSV {
			return r.csvFieldEnd(body, at)
		}
		return r.textFieldEnd(body, at)
	}
	if i := bytes.IndexByte(body[at:], r.d.Delimiter); i >= 0 {
		return at + i, at + i + 1
	}
	return len(body), -1
}

func (r *CopyReader) textFieldEnd(body []byte, at int) (end, next int) {
	for at < len(body) {
		stop := len(body)
		if i := bytes.IndexByte(body[at:], r.d.Delimiter); i >= 0 {
			stop = at + i
		}
		i := bytes.IndexByte(body[at:stop], '\\')
		switch {
		case i < 0 && stop == len(body):
			return stop, -1
		case i < 0:
			return stop, stop + 1
		case at+i+1 >= len(body):
			return at + i, -1
		}
		at += i + 2
	}
	return len(body), -1
}

func (r *CopyReader) csvFieldEnd(body []byte, at int) (end, next int) {
	quoted := false
	for ; at < len(body); at++ {
		switch c := body[at]; {
		case quoted && c == r.d.Escape && at+1 < len(body) && (body[at+1] == r.d.Escape || body[at+1] == r.d.Quote):
			at++
		case c == r.d.Quote:
			quoted = !quoted
		case c == r.d.Delimiter && !quoted:
			return at, at + 1
		}
	}
	return len(body), -1
}

// readValue makes of a field what the type's input function gets.
func (r *CopyReader) readValue(v *CopyValue, raw []byte, w wantedColumn, special bool) {
	d := r.d
	quoted := false
	v.Bytes = raw
	if special {
		if d.Format == CopyText && bytes.IndexByte(raw, '\\') >= 0 {
			start := len(r.scratch)
			r.scratch = unescape(r.scratch, raw)
			v.Bytes = r.scratch[start:len(r.scratch):len(r.scratch)]
		}
		if d.Format == CopyCSV && bytes.IndexByte(raw, d.Quote) >= 0 {
			quoted = true
			start := len(r.scratch)
			r.scratch = d.unquote(r.scratch, raw)
			v.Bytes = r.scratch[start:len(r.scratch):len(r.scratch)]
		}
	}
	switch {
	case !quoted && string(raw) == d.Null:
		v.Null = !w.forceNotNull
		v.Bytes = raw
	case d.HasDefault && string(raw) == d.Default:
		v.Default = true
	case w.forceNull && string(v.Bytes) == d.Null:
		v.Null = true
	}
	if v.Null || v.Default {
		v.Bytes = nil
		return
	}
	if d.Converted && !asciiBytes(v.Bytes) {
		r.fail(wire.Errorf("0A000", "COPY into a sharded table: the key is not ASCII, and the data are in another encoding than the server").
			WithDetail("Column %q is needed to place the row; the data are in %s.", r.columns[w.column], d.Encoding).
			WithHint("Set client_encoding, or COPY's option ENCODING, to the server's encoding."))
		r.err.Where = r.context(r.row.LastLine, nil)
	}
}

func asciiBytes(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// unescape appends a field of text without its backslashes.
func unescape(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 || i+1 == len(raw) {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		case 'x':
			c, raw = number(c, raw, 4, 2)
		case '0', '1', '2', '3', '4', '5', '6', '7':
			c, raw = number(c-'0', raw, 3, 2)
		}
		dst = append(dst, c)
	}
}

// number reads up to n more digits of so many bits behind an octal digit; or, in base
// 16, behind an x, which stays one when none follow.
func number(c byte, raw []byte, bits uint, n int) (byte, []byte) {
	value := c
	for i := 0; i < n && len(raw) > 0; i++ {
		digit := hexDigit(raw[0])
		if digit >= 1<<bits {
			break
		}
		if bits == 4 && i == 0 {
			value = 0
		}
		value = value<<bits | digit
		raw = raw[1:]
	}
	return value, raw
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// unquote appends a field of CSV without its quotes and escapes.
func (d *CopyDialect) unquote(dst, raw []byte) []byte {
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == d.Escape && i+1 < len(raw) && (raw[i+1] == d.Escape || raw[i+1] == d.Quote):
			i++
			dst = append(dst, raw[i])
		case c == d.Quote:
			quoted = !quoted
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
