package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// DumpVersion is that of the dumps this program writes, and the only one it reads.
const DumpVersion = 1

// ErrDump is wrapped by the errors of a dump that cannot be read.
var ErrDump = errors.New("the catalog dump cannot be read")

// Dump holds what a server has answered to the questions of LoadTables, in order: from
// it the same Catalog is made, without a server, by the same code. It is immutable.
type Dump struct {
	answers []answer
}

// answer is what the server said to one query. Values are in text format.
type answer struct {
	// Query tells by its hash which query it was, with its arguments.
	Query string `json:"query"`
	// Types are the columns' type OIDs.
	Types []uint32    `json:"types"`
	Rows  [][]*string `json:"rows"`
}

// MakeDump is LoadTables, and returns besides what the Catalog was made of. A name or
// text of the server that is no UTF-8 is an error.
func MakeDump(ctx context.Context, q Querier) (*Catalog, *Dump, error) {
	d := &Dump{}
	c, err := LoadTables(ctx, recorder{q, d})
	if err != nil {
		return nil, nil, err
	}
	return c, d, nil
}

// Catalog makes the Catalog that the dump was made beside. The error wraps ErrDump: the
// dump is of a program that asks servers other things. Its Version is 1.
func (d *Dump) Catalog(ctx context.Context) (*Catalog, error) {
	r := &replay{answers: d.answers}
	c, err := LoadTables(ctx, r)
	if err == nil && len(r.answers) > 0 {
		err = errOtherProgram
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDump, err)
	}
	c.version = 1
	return c, nil
}

var errOtherProgram = errors.New("it was made by another version of the program: make it anew")

// storedDump is a dump as it is written.
type storedDump struct {
	Version int    `json:"version"`
	Sum     string `json:"sha256"`
	// Answers are read when the version is known.
	Answers json.RawMessage `json:"answers"`
}

// MarshalJSON implements json.Marshaler.
func (d *Dump) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(d.answers)
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedDump{DumpVersion, sumOf(b), b})
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// UnmarshalJSON implements json.Unmarshaler. The error wraps ErrDump when the version is
// unknown or the dump is not as it was written.
func (d *Dump) UnmarshalJSON(b []byte) error {
	var s storedDump
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w: %w", ErrDump, err)
	}
	if s.Version != DumpVersion {
		return fmt.Errorf("%w: it has version %d, and only %d is known", ErrDump, s.Version, DumpVersion)
	}
	var answers []answer
	if err := json.Unmarshal(s.Answers, &answers); err != nil {
		return fmt.Errorf("%w: %w", ErrDump, err)
	}
	if again, err := json.Marshal(answers); err != nil || sumOf(again) != s.Sum {
		return fmt.Errorf("%w: it is not as it was written", ErrDump)
	}
	d.answers = answers
	return nil
}

// hashOf names a query with its arguments.
func hashOf(sql string, args []any) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%v", sql, args)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// take reads all rows of an answer.
func (a *answer) take(rows pgx.Rows) error {
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		a.Types = append(a.Types, f.DataTypeOID)
	}
	for rows.Next() {
		row := make([]*string, len(a.Types))
		for i, b := range rows.RawValues() {
			if b == nil {
				continue
			}
			if !utf8.Valid(b) {
				return fmt.Errorf("%q is no UTF-8 and cannot be dumped", b)
			}
			s := string(b)
			row[i] = &s
		}
		a.Rows = append(a.Rows, row)
	}
	return rows.Err()
}
