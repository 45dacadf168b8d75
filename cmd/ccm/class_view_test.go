package main

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
)

// However often a Service is read, the controller sees the same, and the informer keeps it as the API server has it.
func TestServiceOfTheClassLooksTheSameEachTime(t *testing.T) {
	class := defaultClass
	client := fake.NewClientset(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "ours", Finalizers: []string{classFinalizer}},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, LoadBalancerClass: &class}})
	factory := informers.NewSharedInformerFactory(client, 0)
	view := classView{factory.Core().V1().Services(), class}
	view.Informer()
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	kept, err := factory.Core().V1().Services().Lister().Services("default").Get("ours")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		service, err := view.Lister().Services("default").Get("ours")
		if err != nil {
			t.Fatal(err)
		}
		all, err := view.Lister().List(labels.Everything())
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		for _, got := range []*v1.Service{service, all[0], shownObject(kept, class).(*v1.Service)} {
			if got.Spec.LoadBalancerClass != nil || !slices.Equal(got.Finalizers, []string{servicehelpers.LoadBalancerCleanupFinalizer}) {
				t.Errorf("class %v, finalizers %v", got.Spec.LoadBalancerClass, got.Finalizers)
			}
		}
	}
	if *kept.Spec.LoadBalancerClass != class || !slices.Equal(kept.Finalizers, []string{classFinalizer}) {
		t.Errorf("the informer has class %s, finalizers %v", *kept.Spec.LoadBalancerClass, kept.Finalizers)
	}
}
