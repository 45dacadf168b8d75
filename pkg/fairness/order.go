package fairness

import (
	"k8s.io/client-go/util/workqueue"
)

// Order orders the items of a workqueue so that namespaces get their turns one after the other, and the items of one namespace in the order
// in which they came. It is workqueue.TypedQueueConfig.Queue.
type Order[T comparable] struct {
	namespace func(T) string
	items     map[string][]T
	next      []string // namespaces with items; the first one is next
	size      int
}

var _ workqueue.Queue[string] = (*Order[string])(nil)

// NewOrder returns an empty Order; namespace says whose an item is.
func NewOrder[T comparable](namespace func(T) string) *Order[T] {
	return &Order[T]{namespace: namespace, items: map[string][]T{}}
}

// NewQueue returns a workqueue with such an order, whose limiter says when to come back to items that failed.
func NewQueue[T comparable](namespace func(T) string, limiter workqueue.TypedRateLimiter[T]) workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[T]{
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[T]{
			Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[T]{Queue: NewOrder(namespace)}),
		}),
	})
}

// Touch does nothing: an item that is added again keeps its place.
func (o *Order[T]) Touch(T) {}

// Push adds an item.
func (o *Order[T]) Push(item T) {
	of := o.namespace(item)
	if len(o.items[of]) == 0 {
		o.next = append(o.next, of)
	}
	o.items[of] = append(o.items[of], item)
	o.size++
}

// Len is the number of items.
func (o *Order[T]) Len() int { return o.size }

// Pop takes the next item out. There must be one.
func (o *Order[T]) Pop() T {
	of := o.next[0]
	o.next = o.next[1:]
	item := o.items[of][0]
	o.items[of] = o.items[of][1:]
	o.size--
	if len(o.items[of]) > 0 {
		o.next = append(o.next, of)
	} else {
		delete(o.items, of)
	}
	return item
}
