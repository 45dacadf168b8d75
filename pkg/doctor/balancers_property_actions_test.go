package doctor_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	lifeName       = "life" // of the Service that shows that a copy of a cluster runs
	lifeOfOriginal = "life-of-original"
	cleanup        = "service.kubernetes.io/load-balancer-cleanup"
	hostnames      = settings.AnnotationPrefix + "tls-hostnames"
	sharing        = settings.AnnotationPrefix + "shared"
	mostBalancers  = 25
	mostForeign    = 12 // which nothing removes: each look at the account costs more for them
	servicesByName = 4  // a name is often used again
)

// actions are what happens on the account, some more often than others.
func (w *balancerWorld) actions() []func() {
	any := func(do func(*balancerMember)) func() { return func() { do(w.clusters[w.rand.IntN(len(w.clusters))]) } }
	service := func(do func(*balancerMember, *corev1.Service)) func() {
		return any(func(m *balancerMember) {
			names := slices.DeleteFunc(slices.Sorted(maps.Keys(m.services)), func(name string) bool { return name == lifeName || name == lifeOfOriginal })
			if len(names) > 0 {
				do(m, m.services[names[w.rand.IntN(len(names))]])
			}
		})
	}
	first := func(do func(*balancerMember)) func() { return func() { do(w.clusters[0]) } }
	second := func(do func(*balancerMember)) func() { return func() { do(w.clusters[1]) } }
	run := any(func(m *balancerMember) { w.runDoctor(m, w.rand.IntN(8) == 0) })
	return []func(){
		any(w.serve), any(w.serve), any(w.serve), any(w.share), service(w.leaveBehind), service(w.leaveBehind), service(w.leaveBehind),
		service(func(m *balancerMember, s *corev1.Service) { w.beginDeletion(m, s) }), service(w.lose), service(w.controllerDeletes), service(w.changeClass), service(w.changeType),
		service(w.changeCertificate), service(w.changeCertificate), w.membersGo, w.membersGo, first(w.saveEtcd), first(w.copyCluster), first(w.copyCluster), first(w.leaveBehindOfACopy), first(w.leaveBehindOfACopy), second(w.saveEtcd), second(w.setBack),
		w.endCopy, any(w.review), any(w.review), any(w.review), any(w.namesake), w.foreign, w.personKeeps, w.personLooks, w.personLooks, w.cleanUp,
		w.timePasses, w.timePasses, w.timePasses, w.timePasses, run, run, run, run, run, run, run, run,
	}
}

// timePasses is never so long that a person does not look meanwhile.
func (w *balancerWorld) timePasses() {
	w.clock.Advance([]time.Duration{time.Minute, 20 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}[w.rand.IntN(6)])
}

// serve makes a Service with a load balancer of its own: kept by an annotation now and then, with a certificate often.
func (w *balancerWorld) serve(m *balancerMember) {
	name := fmt.Sprint("web", w.rand.IntN(servicesByName))
	var annotations []string
	if w.rand.IntN(2) == 0 {
		annotations = append(annotations, "tls-hostnames", "a.example")
	}
	if w.rand.IntN(6) == 0 {
		annotations = append(annotations, []string{"retain", "deletion-protection"}[w.rand.IntN(2)], "true")
	}
	w.serveNamed(m, name, annotations...)
}

func (w *balancerWorld) serveNamed(m *balancerMember, name string, annotations ...string) {
	s := balanced(name, annotations...)
	s.UID, s.Finalizers = types.UID(w.rand.NewUUID()), []string{cleanup}
	taken := slices.ContainsFunc(slices.Collect(maps.Values(w.look().balancers)), w.named(plan.NewIdentity(m.id, "kubernetes", s).InCluster(m.uid).Name))
	if m.services[name] != nil || taken || len(w.all) >= mostBalancers {
		return
	}
	m.serveAs(w.t, m.id, m.uid, s)
	m.apply(w.t, s.DeepCopy())
	m.services[name] = s
	w.adopt(m, s)
	w.note("%s serves %s (%s)", m.name, name, s.UID)
}

// adopt notes what was made for a Service.
func (w *balancerWorld) adopt(m *balancerMember, s *corev1.Service) {
	now, uid := w.look(), string(s.UID)
	for id, lb := range now.balancers {
		if w.all[id] == nil && lb.Labels[settings.LabelServiceUID] == uid {
			w.all[id] = &balancedThing{id: id, name: lb.Name, uid: uid, maker: m}
		}
	}
	for id, bundle := range now.bundles {
		if w.all[id] == nil && bundle.Labels[settings.LabelServiceUID] == uid {
			w.all[id] = &balancedThing{id: id, name: bundle.Name, uid: uid, maker: m, bundle: true, hostname: strings.Join(bundle.Hostnames, ",")}
		}
	}
}

// share makes a Service on a load balancer made for a group, or on Terraform's. It is left behind now and then.
func (w *balancerWorld) share(m *balancerMember) {
	if w.rand.IntN(4) > 0 || len(w.all) >= mostBalancers {
		return
	}
	s := w.shareNamed(m, "shared-"+w.rand.NewUUID()[:8], w.rand.IntN(2) == 0)
	if w.rand.IntN(3) == 0 && w.made < mostForeign {
		w.made++
		for id, lb := range w.look().balancers {
			if slices.ContainsFunc(lb.Backends, ofService(s)) {
				w.shared[id] = append(w.shared[id], m)
			}
		}
		return
	}
	m.apply(w.t, s.DeepCopy())
	m.services[s.Name] = s
	w.runDoctor(m, w.rand.IntN(2) == 0)
	if w.rand.IntN(2) == 0 { // its controller removes it
		w.controllerDeletes(m, s)
	}
}

// shareNamed makes such a Service, which is not in Kubernetes.
func (w *balancerWorld) shareNamed(m *balancerMember, name string, certificate bool) *corev1.Service {
	s := balanced(name, "shared", []string{"create/group", "terraform"}[w.rand.IntN(2)], "routes", "[{host: "+name+".example, path: /}]")
	s.UID, s.Finalizers = types.UID(w.rand.NewUUID()), []string{cleanup}
	if certificate {
		s.Spec.Ports[0] = corev1.ServicePort{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, NodePort: 30443}
		s.Annotations[hostnames] = "b.example"
	}
	if err := m.ensure(w.t, m.controller(m.id, m.uid, s), s); err != nil {
		w.t.Fatal(err)
	}
	w.adopt(m, s)
	w.note("%s shares %s", m.name, s.Annotations[sharing])
	return s
}

// leaveBehind deletes a Service whose controller does not run, a doctor may see that, and a person takes the finalizer off.
func (w *balancerWorld) leaveBehind(m *balancerMember, s *corev1.Service) {
	if s.Annotations[sharing] != "" || !w.beginDeletion(m, s) {
		return
	}
	if w.rand.IntN(4) > 0 {
		w.runDoctor(m, false)
	}
	w.lose(m, m.services[s.Name])
	if w.rand.IntN(4) > 0 {
		w.membersGo()
	}
}

// beginDeletion is false if the Service was being deleted already.
func (w *balancerWorld) beginDeletion(m *balancerMember, s *corev1.Service) bool {
	if s.Annotations[sharing] != "" || len(s.Finalizers) == 0 {
		return false
	}
	if s.DeletionTimestamp != nil {
		return true
	}
	w.keepRetained(s)
	w.update(m, s, func(s *corev1.Service) {
		now := metav1.Now()
		s.DeletionTimestamp = &now
	})
	w.note("%s begins to delete %s", m.name, s.Name)
	return true
}

// keepRetained notes that a person wants what a Service with one of the two annotations leaves.
func (w *balancerWorld) keepRetained(s *corev1.Service) {
	if s.Annotations[settings.AnnotationPrefix+"retain"]+s.Annotations[settings.AnnotationPrefix+"deletion-protection"] == "" {
		return
	}
	for _, one := range w.all {
		if one.uid == string(s.UID) && !one.bundle && one.kept == "" {
			one.kept = "a person, by an annotation"
		}
	}
}

// update changes a Service in Kubernetes.
func (w *balancerWorld) update(m *balancerMember, s *corev1.Service, change func(*corev1.Service)) {
	changed := s.DeepCopy()
	change(changed)
	if _, err := m.kube.CoreV1().Services(s.Namespace).Update(testContext(w.t), changed, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	m.services[s.Name] = changed
}

// lose takes a Service away, whose finalizer a person took off. Where it was not being deleted, what it had is wanted.
func (w *balancerWorld) lose(m *balancerMember, s *corev1.Service) {
	if s.Annotations[sharing] != "" {
		return
	}
	if s.DeletionTimestamp == nil {
		if w.rand.IntN(3) > 0 {
			return
		}
		for _, one := range w.all {
			if one.uid == string(s.UID) && one.kept == "" {
				one.kept, one.silent = lostService, true
			}
		}
	}
	m.loses(w.t, s)
	delete(m.services, s.Name)
	w.note("%s loses %s", m.name, s.Name)
}

// controllerDeletes is what ccm does.
func (w *balancerWorld) controllerDeletes(m *balancerMember, s *corev1.Service) {
	if w.heldElsewhere(m, s) || s.Annotations[settings.AnnotationPrefix+"deletion-protection"] != "" || len(s.Finalizers) == 0 {
		return
	}
	w.check()
	w.keepRetained(s)
	if err := m.controller(m.id, m.uid, s).EnsureLoadBalancerDeleted(testContext(w.t), "kubernetes", s); err != nil {
		w.t.Fatal(err)
	}
	m.loses(w.t, s)
	delete(m.services, s.Name)
	now := w.look()
	maps.DeleteFunc(w.all, func(_ string, one *balancedThing) bool {
		labels, _, there := now.labels(one)
		return one.uid == string(s.UID) && (!there || labels[settings.LabelServiceUID] == "")
	})
	w.note("the controller of %s deletes %s", m.name, s.Name)
}

// heldElsewhere reports whether a copy of the cluster has the Service too.
func (w *balancerWorld) heldElsewhere(m *balancerMember, s *corev1.Service) bool {
	return slices.ContainsFunc(w.clusters, func(other *balancerMember) bool {
		return other != m && other.services[s.Name] != nil && other.services[s.Name].UID == s.UID
	})
}

// changeClass lets another controller serve a Service. What it had is left behind when it goes.
func (w *balancerWorld) changeClass(m *balancerMember, s *corev1.Service) {
	if w.rand.IntN(3) > 0 || s.Annotations[sharing] != "" || s.DeletionTimestamp != nil {
		return
	}
	other := "example.com/other"
	w.update(m, s, func(s *corev1.Service) { s.Spec.LoadBalancerClass, s.Finalizers = &other, nil })
	w.note("%s of %s changes its class", s.Name, m.name)
}

// changeType makes a Service one without a load balancer, or with one again, while its controller does not run.
func (w *balancerWorld) changeType(m *balancerMember, s *corev1.Service) {
	if s.Annotations[sharing] != "" || s.DeletionTimestamp != nil {
		return
	}
	was := s.Spec.Type
	w.update(m, s, func(s *corev1.Service) {
		s.Spec.Type, s.Finalizers = corev1.ServiceTypeClusterIP, nil
		if was == corev1.ServiceTypeClusterIP {
			s.Spec.Type, s.Finalizers = corev1.ServiceTypeLoadBalancer, []string{cleanup}
		}
	})
	w.note("%s of %s is a %s no more", s.Name, m.name, was)
}

// changeCertificate asks for another certificate. The controller dies before it deletes the former one, or does not run.
func (w *balancerWorld) changeCertificate(m *balancerMember, s *corev1.Service) {
	if s.Annotations[hostnames] == "" || s.Annotations[sharing] != "" || s.DeletionTimestamp != nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer ||
		s.Spec.LoadBalancerClass != nil || w.heldElsewhere(m, s) || len(w.all) >= mostBalancers {
		return
	}
	w.update(m, s, func(s *corev1.Service) {
		s.Annotations[hostnames] = map[string]string{"a.example": "c.example", "c.example": "a.example"}[s.Annotations[hostnames]]
	})
	s = m.services[s.Name]
	w.note("%s of %s asks for a certificate of %s", s.Name, m.name, s.Annotations[hostnames])
	if w.rand.IntN(2) == 0 {
		return
	}
	defer w.sim.Inject(simulator.Fault{Operation: "DELETE /load-balancer/certificate-bundles/{bundle}", Status: 403})()
	w.note("  %v", m.ensure(w.t, m.controller(m.id, m.uid, s), s.DeepCopy()))
	w.adopt(m, s)
}
