package simulator

import (
	"iter"
	"slices"
	"time"
)

// table holds the resources of one kind, in the order of their UUIDs: the order in which the recorded API lists the
// older resources. The newer ones it lists in the order of their creation: see sortByCreation.
type table[T any] struct {
	byID map[string]*T
	ids  []string
}

func (t *table[T]) get(id string) (*T, bool) {
	v, ok := t.byID[id]
	return v, ok
}

func (t *table[T]) put(id string, v *T) {
	if t.byID == nil {
		t.byID = make(map[string]*T)
	}
	if _, known := t.byID[id]; !known {
		i, _ := slices.BinarySearch(t.ids, id)
		t.ids = slices.Insert(t.ids, i, id)
	}
	t.byID[id] = v
}

func (t *table[T]) remove(id string) {
	if _, known := t.byID[id]; !known {
		return
	}
	delete(t.byID, id)
	i, _ := slices.BinarySearch(t.ids, id)
	t.ids = slices.Delete(t.ids, i, i+1)
}

func (t *table[T]) len() int { return len(t.ids) }

// all yields the resources. The table must not be changed meanwhile.
func (t *table[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, id := range t.ids {
			if !yield(t.byID[id]) {
				return
			}
		}
	}
}

// creation is the time of a newer resource that is being made: no two have the same. The lock is held.
func (s *Simulator) creation() stamp {
	at := s.now().UTC().Truncate(time.Microsecond)
	if !at.After(s.lastCreation) {
		at = s.lastCreation.Add(time.Microsecond)
	}
	s.lastCreation = at
	return stamp(at)
}

// sortByCreation puts a list of newer resources into the order in which the API lists them.
func sortByCreation[T any](list []T, created func(*T) stamp) {
	slices.SortStableFunc(list, func(a, b T) int { return time.Time(created(&a)).Compare(time.Time(created(&b))) })
}
