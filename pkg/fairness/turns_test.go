package fairness

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// stepped is a Turns whose clock the test steps.
func stepped(workers int) (*Turns, *time.Time) {
	now := time.Unix(1e9, 0)
	turns := NewTurns(workers)
	turns.now = func() time.Time { return now }
	return turns, &now
}

func TestTurnsOfOneNamespaceLeaveWorkersForAnother(t *testing.T) {
	turns, _ := stepped(10)
	taken := 0
	for n := range 1000 {
		if _, ok := turns.Take("noisy", fmt.Sprint(n)); ok {
			turns.Begin("noisy", fmt.Sprint(n))
			taken++
		}
	}
	if taken != 5 {
		t.Errorf("a namespace alone has %d of 10 workers, want half of them", taken)
	}
	for n := range 3 {
		if _, ok := turns.Take("quiet", fmt.Sprint(n)); !ok {
			t.Errorf("object %d of another namespace does not get its turn", n)
		}
	}
}

func TestTurnsKeepTheOrderOfObjectsThatComeBack(t *testing.T) {
	turns, now := stepped(2)
	for n := range 5 {
		if _, ok := turns.Take("a", fmt.Sprint(n)); ok != (n == 0) {
			t.Fatalf("object %d: taken %t", n, ok)
		}
	}
	var order []string
	for ended := "0"; len(order) < 4; {
		turns.End("a", ended)
		for _, object := range []string{"4", "3", "2", "1"} { // they come back in any order
			if slices.Contains(order, object) {
				continue
			}
			if _, ok := turns.Take("a", object); ok {
				order = append(order, object)
				ended = object
			}
		}
		*now = now.Add(comeBack)
	}
	if want := []string{"1", "2", "3", "4"}; !slices.Equal(order, want) {
		t.Errorf("order is %v, want %v", order, want)
	}
}

func TestTurnsAreNotKeptByObjectsThatDoNotComeBack(t *testing.T) {
	turns, now := stepped(2)
	turns.Take("a", "never begins")
	turns.Take("a", "never comes back")
	if _, ok := turns.Take("a", "last"); ok {
		t.Fatal("two objects have the turn of one")
	}
	for waited := time.Duration(0); ; waited += time.Second {
		if waited > time.Hour {
			t.Fatal("the last object never gets its turn")
		}
		*now = now.Add(time.Second)
		if _, ok := turns.Take("a", "last"); ok {
			break
		}
	}
	turns.End("a", "last")
	if len(turns.namespaces) != 0 {
		t.Errorf("%d namespaces are remembered", len(turns.namespaces))
	}
}

// Whatever comes and ends: no namespace has more than its share, and each object gets its turn.
func TestTurnsStarveNoObject(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 2))
		turns, now := stepped(1 + random.IntN(8))
		type object struct{ namespace, name string }
		waiting := map[object]time.Time{} // when it comes back
		var working []object
		for n := range 60 {
			waiting[object{fmt.Sprint("n", min(random.IntN(5), random.IntN(5))), fmt.Sprint(n)}] = *now
		}
		for steps := 0; len(waiting) > 0; steps++ {
			if steps > 10000 {
				t.Fatalf("seed %d: %d objects have not had their turn", seed, len(waiting))
			}
			for one, at := range waiting {
				if at.After(*now) || len(working) >= turns.workers {
					continue
				}
				again, ok := turns.Take(one.namespace, one.name)
				if !ok {
					if again <= 0 || again > mostComeBack {
						t.Fatalf("seed %d: an object is to come back in %s", seed, again)
					}
					waiting[one] = now.Add(again)
					continue
				}
				turns.Begin(one.namespace, one.name)
				delete(waiting, one)
				working = append(working, one)
			}
			counts := map[string]int{}
			for _, one := range working {
				if counts[one.namespace]++; counts[one.namespace] > max(turns.workers/2, 1) {
					t.Fatalf("seed %d: namespace %s has %d of %d workers", seed, one.namespace, counts[one.namespace], turns.workers)
				}
			}
			if len(working) > 0 && random.IntN(2) == 0 {
				turns.End(working[0].namespace, working[0].name)
				working = working[1:]
			}
			*now = now.Add(100 * time.Millisecond)
		}
	}
}

func TestPaceBoundsAnObjectThatChangesAllTheTime(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := &pace{now: func() time.Time { return now }}
	done := 0
	for range 100 { // in ten seconds
		if wait, ok := p.take("a"); ok {
			done++
		} else if wait <= 0 || wait > everyPace {
			t.Fatalf("it has to wait %s", wait)
		}
		now = now.Add(100 * time.Millisecond)
	}
	if done < 10 || done > 15 {
		t.Errorf("100 changes in 10 s are worked on %d times, want 10 to 15", done)
	}
	if _, ok := p.take("b"); !ok {
		t.Error("another object has to wait")
	}
	now = now.Add(time.Minute)
	for n := range 3 * paceSweep {
		p.take(fmt.Sprint(n))
		now = now.Add(time.Second)
	}
	if len(p.byObject) > 2*paceSweep {
		t.Errorf("%d objects are remembered", len(p.byObject))
	}
}

func TestOrderGoesFromNamespaceToNamespace(t *testing.T) {
	order := NewOrder(func(item string) string { return item[:1] })
	for _, item := range []string{"a1", "a2", "a3", "b1", "c1", "b2"} {
		order.Push(item)
	}
	got := []string{order.Pop(), order.Pop()}
	order.Push("a4")
	order.Push("d1")
	for order.Len() > 0 {
		got = append(got, order.Pop())
	}
	if want := []string{"a1", "b1", "c1", "a2", "b2", "d1", "a3", "a4"}; !slices.Equal(got, want) {
		t.Errorf("order is %v, want %v", got, want)
	}
}
