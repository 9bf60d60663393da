package exec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"shardproxy/wire"
)

// FrameBytes is how large a CopyWriter makes its CopyData frames, and its memory.
const FrameBytes = 64 << 10

// errAdded says why a column cannot be added.
var errAdded = errors.New("the value of an added column cannot be told from NULL in this format")

// CopyWriter puts rows together into CopyData frames for one shard, at most FrameBytes long
// and cut at the borders of rows; a larger row goes over several. Each frame is
// handed to the io.Writer when it is full, which may wait: that is the back-pressure.
type CopyWriter struct {
	d     *CopyDialect
	out   io.Writer
	lines *CopyLines
	frame []byte
	begun bool
	// faulty is set when the last row may lack its end.
	faulty bool
	rows   int64
	added  []byte // memory for fields that are added
}

// CopyAdded is a column more, which goes to the end of a row.
type CopyAdded struct {
	Name string
	// Value is in the form that the type's input (in the binary format: receive) function takes, in
	// the data's encoding; nil is NULL.
	Value []byte
}

// NewCopyWriter returns a writer to one shard. lines, when not nil, is told of every row. A shard
// that gets no rows needs no writer.
func NewCopyWriter(out io.Writer, d *CopyDialect, lines *CopyLines) *CopyWriter {
	return &CopyWriter{d: d, out: out, lines: lines}
}

// Rows returns how many rows were written.
func (w *CopyWriter) Rows() int64 { return w.rows }

// Write adds a row. After one with a Fault there can be no more. An error is the io.Writer's.
func (w *CopyWriter) Write(row *CopyRow) error {
	w.faulty = row.Fault != nil
	if err := w.begin(row, len(row.Bytes)); err != nil {
		return err
	}
	return w.put(row.Bytes)
}

// WriteAdded adds a row with more columns at its end. The row must have no Fault. An error is the
// io.Writer's, or says that the format has no way to write a value.
func (w *CopyWriter) WriteAdded(row *CopyRow, more ...CopyAdded) error {
	if row.Fault != nil {
		return row.Fault
	}
	if w.d.Format == CopyBinary {
		return w.addBinary(row, more)
	}
	w.added = w.added[:0]
	for _, a := range more {
		if err := w.addField(a); err != nil {
			return err
		}
	}
	body, end := row.Bytes[:len(row.Bytes)-row.EndBytes], row.Bytes[len(row.Bytes)-row.EndBytes:]
	if row.loneBackslash {
		body = body[:len(body)-1]
	}
	return w.putRow(row, body, w.added, end)
}

func (w *CopyWriter) addBinary(row *CopyRow, more []CopyAdded) error {
	b := binary.BigEndian.AppendUint16(w.added[:0], binary.BigEndian.Uint16(row.Bytes)+uint16(len(more)))
	for _, a := range more {
		if a.Value == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a.Value))), a.Value...)
	}
	w.added = b
	return w.putRow(row, b[:2], row.Bytes[2:], b[2:])
}

// putRow puts a row that consists of parts.
func (w *CopyWriter) putRow(row *CopyRow, a, b, c []byte) error {
	if err := w.begin(row, len(a)+len(b)+len(c)); err != nil {
		return err
	}
	for _, part := range [...][]byte{a, b, c} {
		if err := w.put(part); err != nil {
			return err
		}
	}
	return nil
}

// addField appends delimiter and field of an added column, in text or CSV, to w.added.
func (w *CopyWriter) addField(a CopyAdded) error {
	d := w.d
	b := append(w.added, d.Delimiter)
	start := len(b)
	marker := func() bool {
		return string(b[start:]) == d.Null || d.HasDefault && string(b[start:]) == d.Default
	}
	switch {
	case a.Value == nil && (d.ForceNotNullAll || slices.Contains(d.ForceNotNull, a.Name)):
		return errAdded
	case a.Value == nil:
		b = append(b, d.Null...)
	case d.Format == CopyCSV && string(a.Value) == d.Null && (d.ForceNullAll || slices.Contains(d.ForceNull, a.Name)):
		return errAdded
	case d.Format == CopyCSV:
		b = append(b, d.Quote)
		for _, c := range a.Value {
			if c == d.Quote || c == d.Escape {
				b = append(b, d.Escape)
			}
			b = append(b, c)
		}
		b = append(b, d.Quote)
	default:
		if b = appendEscaped(b, a.Value, d.Delimiter); marker() {
			b = appendOctal(b[:start], a.Value)
		}
		if marker() {
			return errAdded
		}
	}
	w.added = b
	return nil
}

// appendEscaped appends a value in the form of text.
func appendEscaped(dst, value []byte, delimiter byte) []byte {
	for _, c := range value {
		switch c {
		case '\n':
			dst = append(dst, '\\', 'n')
			continue
		case '\r':
			dst = append(dst, '\\', 'r')
			continue
		case '\\', delimiter:
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return dst
}

// appendOctal does so with every byte written as a number, so that it is no marker.
func appendOctal(dst, value []byte) []byte {
	for _, c := range value {
		dst = append(dst, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
	}
	return dst
}

// begin makes room for a row of so many bytes.
func (w *CopyWriter) begin(row *CopyRow, size int) error {
	if !w.begun {
		if err := w.start(); err != nil {
			return err
		}
	}
	if len(w.frame) > 5 && len(w.frame)+size > FrameBytes {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if w.rows++; w.lines != nil {
		w.lines.note(row, size)
	}
	return nil
}

// start opens the first frame, in the binary format with a header of this stream's own.
func (w *CopyWriter) start() error {
	w.begun = true
	w.frame = append(make([]byte, 0, FrameBytes), wire.MsgCopyData, 0, 0, 0, 0)
	if w.d.Format != CopyBinary {
		return nil
	}
	if err := w.put([]byte(copySignature)); err != nil {
		return err
	}
	return w.put(make([]byte, 8)) // no flags, no extension
}

// put appends bytes to the frame, and writes it out whenever it is full.
func (w *CopyWriter) put(data []byte) error {
	for len(data) > 0 {
		if len(w.frame) == FrameBytes {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		n := min(FrameBytes-len(w.frame), len(data))
		w.frame = append(w.frame, data[:n]...)
		data = data[n:]
	}
	return nil
}

// Flush hands what is there to the io.Writer as a frame.
func (w *CopyWriter) Flush() error {
	if len(w.frame) <= 5 {
		return nil
	}
	binary.BigEndian.PutUint32(w.frame[1:], uint32(len(w.frame)-1))
	_, err := w.out.Write(w.frame)
	w.frame = w.frame[:5]
	return err
}

// Close ends the data with CopyDone; in the binary format with the trailer before it, unless the
// last row had a Fault: a part of it may be missing, which has to stay the end. The
// writer is not to be used any more.
func (w *CopyWriter) Close() error {
	if !w.begun {
		if err := w.start(); err != nil {
			return err
		}
	}
	if w.d.Format == CopyBinary && !w.faulty {
		if err := w.put([]byte{0xff, 0xff}); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := w.out.Write([]byte{wire.MsgCopyDone, 0, 0, 0, 4})
	return err
}

// Fail ends the data with CopyFail, which makes the shard roll back. What was not
// written out is dropped. reason must not hold a zero byte.
func (w *CopyWriter) Fail(reason string) error {
	w.frame = w.frame[:0]
	b := binary.BigEndian.AppendUint32([]byte{wire.MsgCopyFail}, uint32(len(reason)+5))
	_, err := w.out.Write(append(append(b, bytes.ReplaceAll([]byte(reason), []byte{0}, nil)...), 0))
	return err
}
