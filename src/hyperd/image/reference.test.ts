import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatReference, parseReference } from './reference.ts';
import { ImageError } from './store.ts';

const HEX = 'a'.repeat(64);

test('parseReference() spells out what familiar names leave out', () => {
  const cases: [text: string, canonical: string][] = [
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['docker.io/user/app', 'docker.io/user/app:latest'],
    ['user/app', 'docker.io/user/app:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['Registry/app', 'Registry/app:latest'],
    ['gcr.io/distroless/static-debian12:nonroot', 'gcr.io/distroless/static-debian12:nonroot'],
    [`busybox@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`],
    [`r.io/a:1@sha256:${HEX}`, `r.io/a:1@sha256:${HEX}`],
    [`r.io/a@sha512:${HEX}${HEX}`, `r.io/a@sha512:${HEX}${HEX}`],
    ['user/a--b.c_d__e', 'docker.io/user/a--b.c_d__e:latest'],
  ];
  for (const [text, canonical] of cases) {
    assert.equal(formatReference(parseReference(text)), canonical, text);
  }
});

test('parseReference() refuses what is no reference and says why', () => {
  const cases: [text: string, message: RegExp][] = [
    ['', /empty/],
    ['Busybox', /lowercase/],
    ['a/B', /lowercase/],
    ['a//b', /invalid reference format/],
    ['/a', /invalid reference format/],
    ['a/', /invalid reference format/],
    ['a:', /invalid tag/],
    ['a:b c', /invalid tag/],
    [`a:${'t'.repeat(129)}`, /invalid tag/],
    ['a@', /invalid digest/],
    ['a@sha256:abc', /invalid digest/],
    [`a@sha256:${'A'.repeat(64)}`, /invalid digest/],
    [`a@sha256:${HEX}@sha256:${HEX}`, /invalid digest/],
    [HEX, /64-byte hexadecimal/],
    ['a___b/c', /invalid reference format/],
    ['r.io:99999/a', /invalid registry host/],
    ['-r.io/a', /invalid registry host/],
    ['r..io/a', /invalid registry host/],
    ['a b', /invalid reference format/],
    ['../../etc', /invalid registry host/],
    ['a/../b', /invalid reference format/],
    [`r.io/${'a/'.repeat(124)}abcdef`, /more than 255 characters/],
    ['a'.repeat(100_000), /100000 characters long/],
  ];
  for (const [text, message] of cases) {
    assert.throws(
      () => parseReference(text),
      (error) =>
        error instanceof ImageError &&
        error.reason === 'InvalidReference' &&
        message.test(error.message),
      text.slice(0, 80),
    );
  }
});
