package proxy

import (
	"strings"
	"testing"
	"time"
)

func TestMaySetCustom(t *testing.T) {
	long := strings.Repeat(" ", overlap)
	for text, want := range map[string]bool{
		"SET a.b = 1":                           true,
		"set \"A b\" . c to 1":                  true,
		"SELECT 1;SeT\tsession\n my_app.x = ''": true,
		"SET LOCAL a.b=1":                       true,
		"SET/* x */a /**/ .b = 1":               true,
		"SET --x\na.b = 1":                      true,
		"SET ünder.b = 1":                       true,
		"SELECT pg_catalog.SET_CONFIG ('a.b'":   true,
		"SET" + long + "a.b = 1":                true,
		"SET /*" + long:                         true,
		"SET \"" + long:                         true,
		"":                                      false,
		"s":                                     false,
		"se":                                    false,
		"SET":                                   false,
		"DO $q$SET my.x":                        true,
		`DO E'\nSET my.x`:                       true,
		"SET a":                                 false,
		"UPDATE t SET a = b.c":                  false,
		"SET search_path TO a.b":                false,
		"SELECT offset.a, dataset .b":           false,
		"VALUES (1)" + strings.Repeat("s", 999): false,
		"SET TIME ZONE 'x.y'":                   false,
		"SET .5":                                false,
	} {
		if got := maySetCustom([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Wherever a text is cut, what it sets is seen.
func TestLookIntoPieces(t *testing.T) {
	text := strings.Repeat("x", 300) + " SET SESSION my.name = 1 " + strings.Repeat("y", 300)
	for first := 1; first < len(text); first++ {
		for _, second := range []int{1, 7, 100, 250} {
			s := &session{work: &work{}}
			_ = s.lookInto([]byte(text[:first]))
			_ = s.lookInto([]byte(text[first:min(first+second, len(text))]))
			_ = s.lookInto([]byte(text[min(first+second, len(text)):]))
			if !s.setsUnknown {
				t.Fatalf("not seen in pieces of %d and %d", first, second)
			}
		}
	}
	s := &session{work: &work{}}
	for _, c := range []byte(text) {
		_ = s.lookInto([]byte{c})
	}
	if !s.setsUnknown {
		t.Error("not seen byte by byte")
	}
}

// The list of prepared statements is found wherever the text is cut.
func TestLookIntoFindsTheList(t *testing.T) {
	text := strings.Repeat("x_", 200) + "select * from PG_Prepared_Statements" + strings.Repeat("_y", 200)
	for cut := range len(text) {
		s := &session{work: &work{}}
		err := s.lookInto([]byte(text[:cut]))
		if err == nil {
			err = s.lookInto([]byte(text[cut:]))
		}
		if err == nil {
			t.Fatalf("not found when cut at %d", cut)
		}
	}
	if err := (&session{work: &work{}}).lookInto([]byte(strings.Repeat(" prepared_statement _prepared_ ", 100))); err != nil {
		t.Error(err)
	}
}

// Values of megabytes are not what costs time: a search by a regular expression
// took seconds here.
func TestLookIntoIsFast(t *testing.T) {
	piece := []byte(strings.Repeat("y", 32<<10))
	s := &session{work: &work{}}
	began := time.Now()
	for range 16 << 20 / len(piece) {
		_ = s.lookInto(piece)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("16 MB took %v", took)
	}
}
