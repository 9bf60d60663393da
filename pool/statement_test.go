package pool_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"shardproxy/pool"
)

// TestStatementsAgainstModel compares the registry with one that only counts.
func TestStatementsAgainstModel(t *testing.T) {
	type key struct{ scope, rest string }
	r := rand.New(rand.NewPCG(5, 6))
	reg := pool.NewStatements()
	held := map[*pool.Statement]int{} // holders
	current := map[key]*pool.Statement{}
	keys := map[*pool.Statement]key{}
	names := map[string]bool{}
	forget := func(s *pool.Statement) {
		if current[keys[s]] == s {
			delete(current, keys[s])
		}
	}
	anyHeld := func() *pool.Statement {
		for s := range held {
			return s
		}
		return nil
	}
	for range 20000 {
		switch n := r.IntN(10); {
		case n < 4:
			k := key{[]string{"", "public", "a"}[r.IntN(3)], fmt.Sprintf("SELECT %d\x00\x00\x00", r.IntN(20))}
			rest := []byte(k.rest)
			s := reg.Acquire(k.scope, rest)
			rest[0] = 'X' // the caller's buffer is used again
			if was := current[k]; was != nil && s != was {
				t.Fatal("an equal text got another statement")
			} else if was == nil && names[s.Name] {
				t.Fatalf("the name %s was used again", s.Name)
			}
			if string(s.Rest) != k.rest || string(s.Text()) != k.rest[:len(k.rest)-3] {
				t.Fatalf("%q %q, want %q", s.Rest, s.Text(), k.rest)
			}
			names[s.Name], current[k], keys[s] = true, s, k
			held[s]++
		case n < 5:
			if s := anyHeld(); s != nil {
				reg.Hold(s)
				held[s]++
			}
		default:
			if s := anyHeld(); s != nil {
				reg.Release(s)
				if held[s]--; held[s] == 0 {
					delete(held, s)
					forget(s)
				}
			}
		}
		if count, _ := reg.Len(); count != len(current) {
			t.Fatalf("%d statements, want %d", count, len(current))
		}
	}
	for s := range held {
		for range held[s] {
			reg.Release(s)
		}
	}
	if count, bytes := reg.Len(); count != 0 || bytes != 0 {
		t.Errorf("%d statements of %d bytes are left", count, bytes)
	}
}

// TestStatementsScope: a scope and a text that join to the same bytes as others
// are still two.
func TestStatementsScope(t *testing.T) {
	reg := pool.NewStatements()
	a, b := reg.Acquire("x", []byte("y\x00\x00\x00")), reg.Acquire("", []byte("x\x00y\x00\x00\x00"))
	if a == b || a.Name == b.Name {
		t.Error("shared")
	}
	types := reg.Acquire("x", []byte("y\x00\x00\x01\x00\x00\x00\x17"))
	if types == a {
		t.Error("the types of parameters are not part of the identity")
	}
}

func TestStatementsConcurrently(t *testing.T) {
	reg := pool.NewStatements()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				s := reg.Acquire("", fmt.Appendf(nil, "SELECT %d\x00\x00\x00", i%7))
				reg.Hold(s)
				reg.Release(s)
				reg.Release(s)
			}
		})
	}
	wg.Wait()
	if count, bytes := reg.Len(); count != 0 || bytes != 0 {
		t.Errorf("%d statements of %d bytes are left", count, bytes)
	}
}

// TestStatementsList: each is listed once, in the order in which they came, with how many hold it.
func TestStatementsList(t *testing.T) {
	reg := pool.NewStatements()
	var last *pool.Statement
	for i := range 50 {
		last = reg.Acquire("public", fmt.Appendf(nil, "SELECT %d\x00\x00\x00", i))
	}
	reg.Hold(last)
	reg.Release(reg.Acquire("public", []byte("SELECT 0\x00\x00\x00")))
	all := reg.List()
	if len(all) != 50 {
		t.Fatal(len(all))
	}
	bytes := int64(0)
	for i, s := range all {
		want := 1
		if i == 49 {
			want = 2
		}
		if s.Text != fmt.Sprintf("SELECT %d", i) || s.Holders != want || s.Name == "" {
			t.Errorf("%d: %+v", i, s)
		}
		bytes += s.Bytes
	}
	if _, sum := reg.Len(); sum != bytes {
		t.Errorf("%d bytes, in all %d", bytes, sum)
	}
}
