package exec

import (
	"fmt"

	"shardproxy/wire"
)

// checkHeader compares the header, which takeLine has just made the row, with the columns'
// names. It is done here because a shard gets no header: a header that is sent on
// would have to go to every shard, and count as a line there.
func (r *CopyReader) checkHeader() {
	body := r.row.Bytes[:len(r.row.Bytes)-r.row.EndBytes]
	if err := r.encodingError(r.row.Line, body); err != nil {
		r.fail(err)
		return
	}
	if r.d.Header != CopyHeaderMatch {
		return
	}
	fault := func(format string, args ...any) {
		r.fail(r.lineError(r.row.LastLine, body, fmt.Sprintf(format, args...)))
	}
	if r.row.Fault != nil {
		r.fail(r.row.Fault)
		return
	}
	if r.d.Converted && !asciiBytes(body) {
		r.fail(wire.Errorf("0A000", "COPY into a sharded table: the header is not ASCII, and the data are in another encoding than the server"))
		return
	}
	got := r.headerNames(body)
	if len(got) != len(r.columns) {
		fault("wrong number of fields in header line: got %d, expected %d", len(got), len(r.columns))
		return
	}
	for i, v := range got {
		switch {
		case v.Null:
			fault("column name mismatch in header line field %d: got null value (\"%s\"), expected \"%s\"", i+1, r.d.Null, r.columns[i])
		case v.Default:
			r.fail(wire.Errorf("0A000", "COPY into a sharded table: the header has the marker for a default"))
		case string(v.Bytes) != r.columns[i]:
			fault("column name mismatch in header line field %d: got \"%s\", expected \"%s\"", i+1, v.Bytes, r.columns[i])
		}
		if r.err != nil {
			return
		}
	}
}

// headerNames reads all fields of a line.
func (r *CopyReader) headerNames(body []byte) []CopyValue {
	var all []CopyValue
	r.scratch = r.scratch[:0]
	if len(r.columns) == 0 && len(body) == 0 {
		return nil
	}
	for at := 0; at >= 0; {
		end, next := r.fieldEnd(body, at, true)
		var v CopyValue
		r.readValue(&v, body[at:end], wantedColumn{}, true)
		all = append(all, v)
		at = next
	}
	return all
}
