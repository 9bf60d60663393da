package shardmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// probe is a function that says what PostgreSQL makes of a text: the hash, or
// the error.
const probe = `CREATE FUNCTION probe(kind text, x text, OUT hash int8, OUT code text, OUT message text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT hash_record_extended(ROW(%L::%s), 0)', x, kind) INTO hash;
EXCEPTION WHEN OTHERS THEN
	code := SQLSTATE; message := SQLERRM;
END $$`

// oddTexts are hand-written inputs of a type: those of which a decision is
// expected, and those that must be left to PostgreSQL.
type oddTexts struct {
	proven, unproven []string
	// letters are what mutations are made with.
	letters string
}

func oddTextsOf(name string) oddTexts {
	switch name {
	case "int2":
		return oddTexts{
			proven:   []string{"", " ", "-", "+", "+5", " 5 ", "\t5\n", "\v5\f\r", "00005", "-0", "+0", "5 5", "5.0", "1e3", "- 5", "--5", "32767", "32768", "-32768", "-32769", "+32768", " 99999 ", "99999999999999999999999", "abc", "'5'", "5;"},
			unproven: []string{"0x10", "0b1", "0o7", "-0x1F", "1_000", "_1", "32768x", "5\u00a0", "５"},
			letters:  "0123456789+- _xXaob.e\t",
		}
	case "int4":
		o := oddTextsOf("int2")
		o.unproven = slices.DeleteFunc(o.unproven, func(s string) bool { return s == "32768x" })
		o.proven = append(o.proven, "2147483647", "2147483648", "-2147483648", "-2147483649", "3000000000", "002147483647")
		return o
	case "int8":
		o := oddTextsOf("int2")
		o.proven = append(o.proven, "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551616")
		o.unproven = slices.DeleteFunc(o.unproven, func(s string) bool { return s == "32768x" })
		return o
	case "text", "varchar":
		return oddTexts{proven: []string{"", " ", "a ", "A", "\u00e9", "\\x41", "{}", "NULL"}, letters: "aA é\u00df日\\'\"{}"}
	case "uuid":
		u := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
		return oddTexts{
			proven: []string{u, strings.ToUpper(u), "{" + u + "}", strings.ReplaceAll(u, "-", ""), "{" + strings.ReplaceAll(u, "-", "") + "}",
				"a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", " " + u, u + " ", "{" + u, u + "}", "{}", "{", "}", "", "x", u + "0", u[:35], u + "-",
				"-" + u, "a-0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0-eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11", "{{" + u + "}}", "g" + u[1:], "(" + u + ")"},
			unproven: []string{"\u00e9" + u[1:]},
			letters:  "0123456789abcdefABCDEF-{} g",
		}
	case "bool":
		return oddTexts{
			proven:   []string{"t", "T", "tr", "tru", "true", "TRUE", "truee", "y", "ye", "yes", "YES", "on", "oN", "o", "of", "off", "offf", "f", "fa", "false", "n", "no", "non", "0", "1", "2", "01", "10", "", " ", " t ", "\ttrue\n", "t f", "-1", "null"},
			unproven: []string{"\u0442"},
			letters:  "truefalsynoTFON01 \t",
		}
	case "date":
		return oddTexts{
			proven: []string{"2024-02-29", "1999-01-08", "0044-03-15 BC", "infinity", "-infinity", "INFINITY", "12024-01-01", "100000-12-31"},
			unproven: []string{"", " ", "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "2024-1-8", "99-01-08", "0099-1-8", "08-01-1999", "1/8/1999", "1.8.1999", "19990108", "990108", "Jan-08-1999", "January 8, 1999", "1999.008", "J2451187", "epoch", "today", "now", "yesterday",
				"2024-01-08 ", " 2024-01-08", "2024-01-08 10:00:00", "2024-01-08 AD", "2024-01-08BC", "0000-01-01", "+infinity", "2024-01-08 bc", "01-02-03", "020240-01-01", "5874897-12-31", "5874898-01-01", "4714-11-24 BC", "4714-11-23 BC", "2024-01-08T", "2024/01/08", "2024-Jan-08", "2024-001", "allballs"},
			letters: "0123456789-/. :TBCJ",
		}
	case "timestamp":
		return oddTexts{
			proven: []string{"2024-02-29", "2024-01-08 04:05:06", "2024-01-08T04:05:06", "2024-01-08 04:05", "2024-01-08 04:05:06.7", "2024-01-08 04:05:06.789012", "2024-01-08 04:05:06+02", "2024-01-08 04:05:06.5-08:30", "2024-01-08 04:05Z", "0044-03-15 04:05:06 BC", "infinity", "-Infinity", "12024-01-08 04:05:06", "0044-03-15 BC"},
			unproven: []string{"", "2024-01-08 4:05:06", "2024-01-08 04:05:06 PM", "2024-01-08 24:00:00", "2024-01-08 04:05:60", "2024-01-08 04:05:06.7890123", "2024-01-08 04:05:06.", "2024-01-08 040506", "2024-01-08 04:05:06 PST", "2024-01-08 04:05:06 America/New_York", "2024-01-08t04:05:06", "2024-01-08T04:05:06z",
				"now", "20240108T040506", "2024-01-08 04:05:06+16", "2024-01-08 04:05:06+02:60", "2024-01-08 25:00:00", "2024-01-08 04:60:00", "Mon Jan 08 04:05:06 2024", "2024-01-08 04:05:06 +02", "294277-01-01 00:00:00", "2024-01-08  04:05:06", "2024-01-08 04:05:06,5", "2024-01-08 04:05.5"},
			letters: "0123456789-:. +TZBC",
		}
	case "timestamptz":
		return oddTexts{
			proven: []string{"2024-01-08 04:05:06Z", "2024-01-08 04:05:06+00", "2024-01-08T04:05:06.789-0530", "2024-01-08 04:05+05:45", "2024-01-08 04:05:06-03:30:52", "0044-03-15 04:05:06+01 BC", "infinity", "-infinity", "1883-11-18 12:03:58-05", "2024-07-01 00:00:00+15:59:59", "12024-01-08 04:05:06Z"},
			unproven: []string{"", "2024-01-08", "2024-01-08 04:05:06", "2024-01-08 04:05:06 UTC", "2024-01-08 04:05:06 PST", "2024-01-08 04:05:06 Europe/Berlin", "2024-01-08Z", "2024-01-08+02", "2024-01-08 04:05:06+2", "2024-01-08 04:05:06+020304", "2024-01-08 04:05:06+16", "2024-01-08 04:05:06 +02", "now", "today",
				"2024-01-08 04:05:06zulu", "2024-01-08 04:05:06z", "2024-01-08 04:05:06+02:", "2024-01-08 04:05:06+02:3", "2024-01-08 04:05:06+02:30:", "2024-01-08 04:05:06GMT+2", "2024-01-08 04:05:06+24", "2024-01-08 04:05:06 -1", "2024-01-08 04:05:06ZZ"},
			letters: "0123456789-:. +TZBC",
		}
	case "bytea":
		return oddTexts{
			proven:   []string{"", "abc", " abc ", `\x`, `\x4`, `\x41`, `\xAbCd`, `\x 41 42`, "\\x41\n42\t43\r", `\x4 1`, `\x41 `, `\xg1`, `\x1g`, `\x414`, `\X41`, `\`, `\\`, `\\\`, `\\\\`, `\1`, `\12`, `\123`, `\377`, `\400`, `\778`, `\087`, `a\\b`, `a\b`, `\x41\\`, "\\x41\v42", `x41`},
			unproven: []string{"\u00e9", "\\x\u00e9"},
			letters:  "\\x0123456789abcdefg \n\v",
		}
	case "numeric":
		return oddTexts{
			proven: []string{"", " ", ".", "-", "+", "5.", ".5", "-.5", "+.5e1", "1e5", "1E+5", "1e-5", "1e", "1e+", "e5", ".e5", "1.2.3", "1e5.5", "--1", "+-1", "- 1", " 1 ", "1 2", "NaN", "nan", " nAn ", "+NaN", "-NaN", "nanx", "inf", "Infinity", "-INF", "+infinity", "infi", "infinityx", "1,5", "1'000", "$1", "0", "-0", "0e5", "000.000", "1e05",
				"123456789012345678901234567890.123456789012345678901234567890", "0.00000000000000000000000001", "10000000000000000000000000000000000000000", "1e1000", "1e-1000", "00000000000000000000000000000000000000000012"},
			unproven: []string{"0x1F", "1_000", "0b11", "1e99999", "1e-99999", "1e1001", "1e 5", "1e +5", "1e\t-5", "1\u00a0", strings.Repeat("1", 1001)},
			letters:  "0123456789.eE+- nNaAiIfF_x",
		}
	}
	panic(name)
}

// mutations makes texts that are nearly those given.
func mutations(texts []string, letters string, n int) []string {
	random := rand.New(rand.NewPCG(7, 7))
	alphabet := []rune(letters)
	out := make([]string, 0, n)
	for len(out) < n {
		s := []rune(texts[random.IntN(len(texts))])
		for range 1 + random.IntN(2) {
			at := random.IntN(len(s) + 1)
			letter := alphabet[random.IntN(len(alphabet))]
			switch op := random.IntN(3); {
			case op == 0 || at == len(s):
				s = append(s[:at:at], append([]rune{letter}, s[at:]...)...)
			case op == 1:
				s = append(s[:at:at], s[at+1:]...)
			default:
				s = append(s[:at:at], append([]rune{letter}, s[at+1:]...)...)
			}
		}
		out = append(out, string(s))
	}
	return out
}

// settingsOf are the sessions under which a text must mean the same.
func settingsOf(k KeyType) []string {
	if k != Date && k != Timestamp && k != Timestamptz {
		return []string{"SET bytea_output = hex"}
	}
	var all []string
	for _, style := range []string{"ISO, MDY", "ISO, DMY", "ISO, YMD", "SQL, DMY", "Postgres, MDY", "German, DMY"} {
		for _, zone := range []string{"UTC", "America/New_York", "Pacific/Apia", "Asia/Kolkata"} {
			all = append(all, fmt.Sprintf("SET datestyle = '%s'; SET timezone = '%s'", style, zone))
		}
	}
	return append(all, "SET datestyle = ISO; SET timezone_abbreviations = 'Australia'", "SET timezone_abbreviations = 'India'; SET intervalstyle = iso_8601")
}

// TestOddTexts lets PostgreSQL judge texts at and beyond the border of what is
// accepted: the hash or the error given here is PostgreSQL's, under all
// settings, or it was left to PostgreSQL.
func TestOddTexts(t *testing.T) {
	db := pgtest.Shared(t)
	db.Exec(probe)
	conn := db.Connect("postgres").PgConn()
	for _, typ := range sqlTypes() {
		t.Run(typ.name, func(t *testing.T) {
			odd := oddTextsOf(typ.name)
			texts := append(odd.proven, odd.unproven...)
			texts = append(texts, mutations(append(texts, typ.edges...), odd.letters, 600)...)
			for i, s := range texts[:len(odd.proven)+len(odd.unproven)] {
				if _, err := typ.key.HashText([]byte(s)); errors.Is(err, ErrUnproven) != (i >= len(odd.proven)) {
					t.Errorf("%q: %v", s, err)
				}
			}
			decided := map[string]int{}
			for _, settings := range settingsOf(typ.key) {
				if _, err := conn.Exec(t.Context(), settings).ReadAll(); err != nil {
					t.Fatal(err)
				}
				query := fmt.Sprintf("SELECT p.hash, p.code, p.message FROM unnest($1::text[]) WITH ORDINALITY u(x, o), LATERAL probe('%s', u.x) p ORDER BY u.o", typ.name)
				runArray(t, conn, query, texts, []int16{1, 0, 0}, func(i int, row [][]byte) {
					decided[judge(t, typ, settings, texts[i], row)]++
				})
			}
			t.Log(decided)
			if decided["hash"] == 0 || typ.key != Text && decided["unproven"] == 0 {
				t.Errorf("the texts are not odd enough: %v", decided)
			}
		})
	}
}

// judge compares one answer with PostgreSQL's and says which kind it is.
func judge(t *testing.T, typ sqlType, settings, text string, row [][]byte) string {
	t.Helper()
	hash, err := typ.key.HashText([]byte(text))
	var refused *ValueError
	switch {
	case errors.Is(err, ErrUnproven):
		return "unproven"
	case errors.As(err, &refused):
		if refused.Code != string(row[1]) || refused.Message != string(row[2]) {
			t.Errorf("%s %q (%s): %v; PostgreSQL says hash %x, %s (SQLSTATE %s)", typ.name, text, settings, err, row[0], row[2], row[1])
		}
		return "error"
	case err != nil:
		t.Errorf("%s %q: %v", typ.name, text, err)
	case row[0] == nil || binary.BigEndian.Uint64(row[0]) != hash:
		t.Errorf("%s %q (%s): %x; PostgreSQL says hash %x, %s (SQLSTATE %s)", typ.name, text, settings, hash, row[0], row[2], row[1])
	}
	return "hash"
}
