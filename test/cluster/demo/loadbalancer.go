package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

const requests = 50

func (d *demo) loadBalancerSteps() []steps.Step {
	return []steps.Step{
		{Name: "a Service of type LoadBalancer gets its address",
			Do: func(ctx context.Context) error { return d.apply(ctx, "service.yaml") }, Check: d.address},
		{Name: "it answers a host on the internet", Check: func(ctx context.Context) (string, error) { return d.ask(ctx, 1) }},
		{Name: fmt.Sprintf("%d of %d requests from there reach the Pod through it", requests, requests),
			Do: d.askAll, Check: func(context.Context) (string, error) { return d.answers, nil }},
	}
}

func (d *demo) address(ctx context.Context) (string, error) {
	balancer, err := d.LoadBalancer(ctx, namespace, "web")
	if err != nil {
		return "", err
	}
	d.ip = balancer.IP
	return fmt.Sprintf("%s (%s) port %d\nload balancer %s  %s  %s", balancer.Service.Status.LoadBalancer.Ingress[0].Hostname, d.ip,
		balancer.Service.Spec.Ports[0].Port, balancer.UUID, balancer.Name, balancer.OperationalState), nil
}

// askAll asks once: once the load balancer has answered at all, every request must succeed.
func (d *demo) askAll(ctx context.Context) (err error) {
	d.answers, err = d.ask(ctx, requests)
	return err
}

// ask makes count requests from a host outside the cluster, each over a new connection.
func (d *demo) ask(ctx context.Context, count int) (string, error) {
	pods, err := d.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil || len(pods.Items) != 1 {
		return "", errors.Join(err, fmt.Errorf("there are %d web Pods, want 1", len(pods.Items)))
	}
	internet, err := machine.NamespaceOf(d.Status.InternetPID)
	if err != nil {
		return "", err
	}
	defer internet.Close()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return internet.Dial(ctx, network, address)
		}}}
	begin := time.Now()
	for n := range count {
		answer, err := get(ctx, client, "http://"+d.ip+"/")
		if err != nil {
			return "", fmt.Errorf("request %d of %d: %w", n+1, count, err)
		}
		if answer != pods.Items[0].Name {
			return "", fmt.Errorf("request %d of %d was answered by %q, not by %s", n+1, count, answer, pods.Items[0].Name)
		}
	}
	return fmt.Sprintf("%d answers of %s in %.2f s", count, pods.Items[0].Name, time.Since(begin).Seconds()), nil
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	question, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(question)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", answer.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// removal deletes everything and sees that the account is as empty as before.
func (d *demo) removal(keepServers bool) []steps.Step {
	removal := []steps.Step{
		{Name: "deleting the Service deletes its load balancer", Do: d.deleteService, Check: d.noLoadBalancers},
		{Name: "deleting the StatefulSet and its claim deletes the volume", Do: d.deleteWorkload, Check: d.noVolume},
	}
	if !keepServers {
		removal = append(removal, steps.Step{Name: "after the nodes' servers are deleted the account has no server, storage or load balancer",
			Do: d.deleteServers, Check: d.accountEmpty})
	}
	return removal
}

func (d *demo) deleteService(ctx context.Context) error {
	if err := d.Client.CoreV1().Services(namespace).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		return err
	}
	return d.Client.AppsV1().Deployments(namespace).Delete(ctx, "web", metav1.DeleteOptions{})
}

func (d *demo) noLoadBalancers(ctx context.Context) (string, error) {
	_, err := d.Client.CoreV1().Services(namespace).Get(ctx, "web", metav1.GetOptions{})
	if err := steps.Gone("the Service", err); err != nil {
		return "", err
	}
	balancers, err := d.Account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{})
	if err != nil {
		return "", err
	}
	if len(balancers) > 0 {
		return "", fmt.Errorf("the account still has load balancer %s in state %s", balancers[0].Name, balancers[0].OperationalState)
	}
	return "", nil
}

func (d *demo) deleteWorkload(ctx context.Context) error {
	if err := d.Client.AppsV1().StatefulSets(namespace).Delete(ctx, "keeper", metav1.DeleteOptions{}); err != nil {
		return err
	}
	return d.Client.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, claim, metav1.DeleteOptions{})
}

func (d *demo) noVolume(ctx context.Context) (string, error) {
	volumes, err := d.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(volumes.Items) > 0 {
		return "", fmt.Errorf("PersistentVolume %s is still there, %s", volumes.Items[0].Name, volumes.Items[0].Status.Phase)
	}
	_, err = d.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: d.storage})
	var problem *upcloud.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		return "", nil
	}
	return "", errors.Join(err, fmt.Errorf("storage %s is still there", d.storage))
}

// deleteServers deletes the nodes' servers with their boot disks.
func (d *demo) deleteServers(ctx context.Context) error {
	servers, err := d.Account.GetServers(ctx)
	if err != nil {
		return err
	}
	for _, server := range servers.Servers {
		if _, err := d.Account.StopServer(ctx, &request.StopServerRequest{UUID: server.UUID, StopType: request.ServerStopTypeHard}); err != nil {
			return err
		}
	}
	for _, server := range servers.Servers {
		deleted := steps.Step{Check: func(ctx context.Context) (string, error) {
			return "", d.Account.DeleteServerAndStorages(ctx, &request.DeleteServerAndStoragesRequest{UUID: server.UUID})
		}}
		if _, err := deleted.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) accountEmpty(ctx context.Context) (string, error) {
	servers, err := d.Account.GetServers(ctx)
	if err != nil {
		return "", err
	}
	storages, err := d.Account.GetStorages(ctx, &request.GetStoragesRequest{Access: upcloud.StorageAccessPrivate})
	if err != nil {
		return "", err
	}
	balancers, err := d.Account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{})
	if err != nil {
		return "", err
	}
	if len(servers.Servers)+len(storages.Storages)+len(balancers) > 0 {
		return "", fmt.Errorf("the account still has %d servers, %d storages, %d load balancers", len(servers.Servers), len(storages.Storages), len(balancers))
	}
	return "", nil
}
