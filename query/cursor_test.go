package query

import "testing"

func TestReadDeclare(t *testing.T) {
	for sql, want := range map[string]DeclareOptions{
		"DECLARE c CURSOR FOR SELECT 1":                                                 {Start: 21},
		"declare c binary no scroll cursor without hold for SELECT 1":                   {Binary: true, NoScroll: true, Start: 51},
		"DECLARE c INSENSITIVE SCROLL CURSOR WITH HOLD FOR (SELECT 1)":                  {Insensitive: true, Scroll: true, Hold: true, Start: 50},
		"/* x */DECLARE \"for\" ASENSITIVE SCROLL /* no */ CURSOR FOR -- x\n WITH a AS": {Asensitive: true, Scroll: true, Start: 65},
		"DECLARE no SCROLL NO SCROLL CURSOR FOR SELECT 1":                               {Scroll: true, NoScroll: true, Start: 39},
	} {
		o, ok := ReadDeclare([]byte(sql))
		if !ok || o != want {
			t.Errorf("%s: %+v %v, want %+v", sql, o, ok, want)
		}
	}
	for _, sql := range []string{"", "SELECT 1", "DECLARE", "DECLARE c", "DECLARE c CURSOR", "DECLARE c CURSOR 1"} {
		if o, ok := ReadDeclare([]byte(sql)); ok {
			t.Errorf("%s: %+v", sql, o)
		}
	}
}

func TestReadFetch(t *testing.T) {
	for sql, want := range map[string]Fetch{
		"FETCH c":                           {Cursor: "c", Count: 1},
		"fetch next from \"C\"":             {Cursor: "C", Count: 1},
		"FETCH PRIOR c":                     {Cursor: "c", Direction: FetchBackward, Count: 1},
		"FETCH FIRST IN c":                  {Cursor: "c", Direction: FetchAbsolute, Count: 1},
		"FETCH LAST c":                      {Cursor: "c", Direction: FetchAbsolute, Count: -1},
		"FETCH ABSOLUTE -7 c":               {Cursor: "c", Direction: FetchAbsolute, Count: -7},
		"MOVE RELATIVE 0 IN c":              {Cursor: "c", Direction: FetchRelative, Move: true},
		"FETCH 5 c":                         {Cursor: "c", Count: 5},
		"FETCH -5 FROM c;":                  {Cursor: "c", Count: -5},
		"MOVE ALL c":                        {Cursor: "c", Count: FetchAll, Move: true},
		"FETCH FORWARD c":                   {Cursor: "c", Count: 1},
		"FETCH FORWARD 3 c":                 {Cursor: "c", Count: 3},
		"FETCH FORWARD ALL FROM c":          {Cursor: "c", Count: FetchAll},
		"FETCH BACKWARD c":                  {Cursor: "c", Direction: FetchBackward, Count: 1},
		"FETCH BACKWARD 2 FROM c -- a word": {Cursor: "c", Direction: FetchBackward, Count: 2},
		"FETCH BACKWARD ALL FROM c":         {Cursor: "c", Direction: FetchBackward, Count: FetchAll},
	} {
		f, ok := ReadFetch(sql)
		if !ok || f != want {
			t.Errorf("%s: %+v %v, want %+v", sql, f, ok, want)
		}
	}
	for _, sql := range []string{"", "FETCH", "CLOSE c", "FETCH 1 c; FETCH 1 c"} {
		if f, ok := ReadFetch(sql); ok {
			t.Errorf("%s: %+v", sql, f)
		}
	}
}
