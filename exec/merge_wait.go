package exec

import "reflect"

// selectMax is how many sources a select statement waits for; more take reflection, which
// is slow but comes once a block at most.
const selectMax = 8

// waiter waits for the first of several sources.
type waiter struct {
	few  [selectMax]<-chan struct{} // nil where there is no source
	many []reflect.SelectCase
}

func newWaiter(sources []Source) *waiter {
	w := &waiter{}
	if len(sources) > selectMax {
		w.many = make([]reflect.SelectCase, len(sources))
	}
	for i, s := range sources {
		if w.many != nil {
			w.many[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(s.Ready())}
		} else {
			w.few[i] = s.Ready()
		}
	}
	return w
}

// drop has the source not be waited for any more.
func (w *waiter) drop(i int) {
	if w.many != nil {
		w.many[i].Chan = reflect.Value{}
	} else {
		w.few[i] = nil
	}
}

// wait returns a source that is ready, whose Next must then be called. At least one must be left.
func (w *waiter) wait() int {
	if w.many != nil {
		i, _, _ := reflect.Select(w.many)
		return i
	}
	select {
	case <-w.few[0]:
		return 0
	case <-w.few[1]:
		return 1
	case <-w.few[2]:
		return 2
	case <-w.few[3]:
		return 3
	case <-w.few[4]:
		return 4
	case <-w.few[5]:
		return 5
	case <-w.few[6]:
		return 6
	case <-w.few[7]:
		return 7
	}
}
