package controlplane

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// CCMToken is a token of the service account that the shipped manifests make for the CCM.
func (c *ControlPlane) CCMToken(ctx context.Context) (string, error) {
	return c.Token(ctx, "upcloud-ccm", nil)
}

// Token is a token of a service account in kube-system, bound to an object if there is one: kubelets give Pods tokens that are
// bound to the Pod, and tell its node.
func (c *ControlPlane) Token(ctx context.Context, account string, bound *authenticationv1.BoundObjectReference) (string, error) {
	client, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return "", err
	}
	lifetime := int64(3600)
	answer, err := client.CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime, BoundObjectRef: bound}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make a token of the service account %s: %w", account, err)
	}
	return answer.Status.Token, nil
}

// As is for whoever has the token.
func (c *ControlPlane) As(token string) *rest.Config { return c.as(c.Admin.Host, token) }
