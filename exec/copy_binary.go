package exec

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"shardproxy/wire"
)

// copySignature begins binary data; flags and the length of an extension follow.
const copySignature = "PGCOPY\n\xff\r\n\x00"

// nextTuple reads the binary header or a tuple; see nextLine.
func (r *CopyReader) nextTuple() (more, isRow bool) {
	if !r.opened {
		r.opened = r.binaryHeader()
		return !r.opened, false
	}
	rest := r.buf[r.pos:]
	if len(rest) < 2 {
		r.ended = r.finished // a byte too few is an end, too
		return !r.finished, false
	}
	count := int(int16(binary.BigEndian.Uint16(rest)))
	switch {
	case count == -1:
		r.ended = true
		if len(rest) > 2 {
			r.fail(r.lineError(r.line+1, nil, "received copy data after EOF marker"))
		}
		return false, false
	case count != len(r.columns):
		r.fail(r.lineError(r.line+1, nil, fmt.Sprintf("row field count is %d, expected %d", count, len(r.columns))))
		return false, false
	}
	at, ok := max(r.scanned, 2), true
	fault := ""
	for ; r.fields < count && fault == ""; r.fields++ {
		if at, fault, ok = r.fieldBehind(rest, at); !ok {
			r.scanned = at
			return true, false
		}
		if r.err != nil {
			return false, false
		}
	}
	r.takeTuple(rest[:at], fault)
	return false, true
}

// fieldBehind returns the place behind the field that begins at a place of a tuple.
// fault says why there is none; ok is false when it has not come yet.
func (r *CopyReader) fieldBehind(rest []byte, at int) (next int, fault string, ok bool) {
	const eof = "unexpected EOF in COPY data"
	if len(rest) < at+4 {
		if r.finished {
			return len(rest), eof, true
		}
		return at, "", false
	}
	size := int(int32(binary.BigEndian.Uint32(rest[at:])))
	switch {
	case size == -1:
		return at + 4, "", true
	case size < 0:
		return at + 4, "invalid field size", true
	case at+4+size > r.limit:
		r.fail(r.tooLong())
	case len(rest) < at+4+size:
		if r.finished {
			return len(rest), eof, true
		}
		return at, "", false
	}
	return at + 4 + size, "", true
}

func (r *CopyReader) takeTuple(tuple []byte, fault string) {
	row := &r.row
	r.line++
	row.Bytes, row.EndBytes, row.Fault = tuple, 0, nil
	row.Line, row.LastLine = r.line, r.line
	fields := r.fields
	if fault != "" {
		fields--
		row.Fault = r.lineError(r.line, nil, fault)
		row.Fault.Where += ", column " + r.columns[fields]
	}
	at, column := 2, 0
	for _, w := range r.wanted {
		v := &r.values[w.slot]
		if *v = (CopyValue{}); w.column >= fields {
			v.Missing = true
			continue
		}
		for ; ; column++ {
			size := int(int32(binary.BigEndian.Uint32(tuple[at:])))
			at += 4
			if column == w.column {
				if v.Null = size < 0; !v.Null {
					v.Bytes = tuple[at : at+size]
				}
			}
			at += max(size, 0)
			if column == w.column {
				column++
				break
			}
		}
	}
	row.Values = r.values
	r.pos += len(tuple)
	r.scanned, r.fields = 0, 0
}

// binaryHeader takes the header; false when it is not all there, or wrong.
func (r *CopyReader) binaryHeader() bool {
	rest := r.buf[r.pos:]
	if r.scanned == 0 {
		n := len(copySignature)
		problem := ""
		switch {
		case len(rest) < n && !r.finished:
			return false
		case !bytes.HasPrefix(rest, []byte(copySignature)):
			problem = "COPY file signature not recognized"
		case len(rest) < n+4 && r.finished:
			problem = "invalid COPY file header (missing flags)"
		case len(rest) < n+4:
			return false
		default:
			problem = flagsProblem(int32(binary.BigEndian.Uint32(rest[n:])))
		}
		if problem == "" {
			switch {
			case len(rest) < n+8 && r.finished:
				problem = "invalid COPY file header (missing length)"
			case len(rest) < n+8:
				return false
			default:
				if r.skip = int64(int32(binary.BigEndian.Uint32(rest[n+4:]))); r.skip < 0 {
					problem = "invalid COPY file header (missing length)"
				}
			}
		}
		if problem != "" {
			r.fail(wire.Errorf("22P04", "%s", problem))
			return false
		}
		r.pos += n + 8
		r.scanned = 1 // the extension is being skipped
	}
	step := min(r.skip, int64(len(r.buf)-r.pos))
	r.pos += int(step)
	if r.skip -= step; r.skip > 0 {
		if r.finished {
			r.fail(wire.Errorf("22P04", "invalid COPY file header (wrong length)"))
		}
		return false
	}
	r.scanned = 0
	return true
}

// flagsProblem says what is wrong with the header's flags.
func flagsProblem(flags int32) string {
	switch {
	case flags&(1<<16) != 0:
		return "invalid COPY file header (WITH OIDS)"
	case flags>>16 != 0:
		return "unrecognized critical flags in COPY file header"
	}
	return ""
}
