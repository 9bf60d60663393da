package shardmap

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// update makes the files of testdata/hash again: go test ./shardmap -update.
var update = flag.Bool("update", false, "make the vectors of testdata/hash again, from PostgreSQL and from the ring")

const vectorDir = "../testdata/hash"

// vectorRows is how many random values a file has beside the edges.
const vectorRows = 200

func vectorFile(name string) string { return filepath.Join(vectorDir, name+".tsv") }

// writeVectors writes a file with a heading.
func writeVectors(t *testing.T, name, heading string, lines []string) {
	t.Helper()
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	content := "# " + heading + "\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(vectorFile(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readVectors returns the columns of a file's lines.
func readVectors(t *testing.T, name string, columns int) [][]string {
	t.Helper()
	file, err := os.Open(vectorFile(name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines [][]string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if strings.HasPrefix(scanner.Text(), "#") {
			continue
		}
		line := strings.Split(scanner.Text(), "\t")
		if len(line) != columns {
			t.Fatalf("%s: %d columns, want %d: %q", name, len(line), columns, line)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestVectors checks the hashes that PostgreSQL gave when the files were made.
// The files are a contract: stored rows lie where these hashes say.
func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	for _, typ := range sqlTypes() {
		lines := readVectors(t, typ.name, 3)
		if len(lines) < len(typ.edges) || typ.key != Bool && len(lines) < vectorRows {
			t.Errorf("%s: %d vectors only", typ.name, len(lines))
		}
		for _, line := range lines {
			text, err := strconv.Unquote(line[0])
			if err != nil {
				t.Fatal(err)
			}
			sent, err := hex.DecodeString(line[1])
			if err != nil {
				t.Fatal(err)
			}
			fromText, err1 := typ.key.HashText([]byte(text))
			fromBinary, err2 := typ.key.HashBinary(sent)
			if got := fmt.Sprint(int64(fromText)); err1 != nil || got != line[2] {
				t.Errorf("%s text %s: %s, %v, want %s", typ.name, line[0], got, err1, line[2])
			}
			if got := fmt.Sprint(int64(fromBinary)); err2 != nil || got != line[2] {
				t.Errorf("%s binary %s: %s, %v, want %s", typ.name, line[1], got, err2, line[2])
			}
		}
	}
}

func makeVectors(t *testing.T) {
	conn := pgtest.Shared(t).Connect("postgres").PgConn()
	version := conn.ParameterStatus("server_version")
	for _, typ := range sqlTypes() {
		random := rand.New(rand.NewPCG(1, uint64(typ.key)))
		texts := typ.edges
		for typ.key != Bool && len(texts) < vectorRows {
			texts = append(texts, typ.random(random))
		}
		query := fmt.Sprintf("SELECT v, "+typ.hash+" FROM (SELECT x::%s AS v FROM unnest($1::text[]) x) s", "v", typ.name)
		var lines []string
		runArray(t, conn, query, texts, []int16{1, 1}, func(i int, row [][]byte) {
			lines = append(lines, fmt.Sprintf("%s\t%x\t%d", strconv.QuoteToASCII(texts[i]), row[0], int64(binary.BigEndian.Uint64(row[1]))))
		})
		heading := fmt.Sprintf("%s: text (quoted as in Go), binary (hexadecimal), hash with seed 0. Made by PostgreSQL %s.", typ.name, version)
		writeVectors(t, typ.name, heading, lines)
	}
}

// TestRowVectors checks composite keys against PostgreSQL.
func TestRowVectors(t *testing.T) {
	db := pgtest.Shared(t)
	hash := func(k KeyType, text string) uint64 {
		h, err := k.HashText([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for _, test := range []struct {
		sql  string
		want RowHash
	}{
		{"ROW(5, 'x'::text)", RowHash(0).Add(hash(Int4, "5")).Add(hash(Text, "x"))},
		{"ROW(5::int8, 'x'::varchar)", RowHash(0).Add(hash(Int4, "5")).Add(hash(Text, "x"))},
		{"ROW('x'::text, 5)", RowHash(0).Add(hash(Text, "x")).Add(hash(Int4, "5"))},
		{"ROW(NULL::int4, 'x'::text)", RowHash(0).AddNull().Add(hash(Text, "x"))},
		{"ROW('x'::text, NULL::int4)", RowHash(0).Add(hash(Text, "x")).AddNull()},
		{"ROW(NULL::int4)", RowHash(0).AddNull()},
		{"ROW(true, date '2024-02-29', numeric '1.50', '\\x00'::bytea)", RowHash(0).Add(hash(Bool, "t")).Add(hash(Date, "2024-02-29")).Add(hash(Numeric, "1.5")).Add(hash(Bytea, "\\x00"))},
	} {
		if got := db.Value("SELECT hash_record_extended(" + test.sql + ", 0)"); got != fmt.Sprint(int64(test.want.Sum())) {
			t.Errorf("%s: %s, want %d", test.sql, got, int64(test.want.Sum()))
		}
	}
	if got := db.Value("SELECT hashtextextended('tenant_a', 0)"); got != fmt.Sprint(int64(SchemaHash("tenant_a"))) {
		t.Errorf("schema: %s, want %d", got, int64(SchemaHash("tenant_a")))
	}
}
