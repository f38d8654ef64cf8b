import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { CancelledError } from './errors.ts';
import { askNewPassword, openTerminal } from './prompt.ts';

/** A terminal whose keys are pressed by the test. */
function fakeTerminal() {
  const input = Object.assign(new EventEmitter(), {
    isTTY: true,
    isRaw: false,
    setRawMode(isRaw: boolean) {
      this.isRaw = isRaw;
    },
    resume() {},
    pause() {},
  });
  const output = { isTTY: true, text: '', write: (text: string) => void (output.text += text) };
  const terminal = openTerminal(input, output);
  assert.ok(terminal);
  const press = (keys: string | Buffer) => input.emit('data', Buffer.from(keys as string));
  return { input, output, terminal, press };
}

test('a secret is not shown, and the terminal is as it was afterwards', async () => {
  const { input, output, terminal, press } = fakeTerminal();
  const answer = terminal.askSecret('Password: ');
  assert.equal(input.isRaw, true);
  press('pass');
  press('wörd\r');
  assert.equal(await answer, 'passwörd');
  assert.equal(output.text, 'Password: \n');
  assert.equal(input.isRaw, false);
  assert.equal(input.listenerCount('data'), 0);
  assert.equal(input.listenerCount('end'), 0);
});

test('whoever answers as soon as the question is there is not shown', async () => {
  const { input, output, terminal, press } = fakeTerminal();
  const seen: boolean[] = [];
  const write = output.write;
  output.write = (text) => {
    seen.push(input.isRaw);
    write(text);
  };
  const answer = terminal.askSecret('Password: ');
  press('secret\r');
  await answer;
  assert.equal(seen[0], true, 'the terminal shows no keys when it shows the question');
});

test('ctrl-C, ctrl-D and a terminal that goes away cancel, and restore the terminal', async () => {
  for (const keys of ['abc\x03', '\x04', undefined]) {
    const { input, terminal, press } = fakeTerminal();
    const answer = terminal.askSecret('Password: ');
    if (keys === undefined) input.emit('end');
    else press(keys);
    await assert.rejects(answer, CancelledError);
    assert.equal(input.isRaw, false, JSON.stringify(keys));
  }
});

test('keys that edit do so; others that are no letters are left out', async () => {
  const { terminal, press } = fakeTerminal();
  const answer = terminal.askSecret('? ');
  press('wrong\x15');
  press('\x7f');
  press('secrex\x7f');
  press('\x1b[D');
  press('t\x01');
  press('\n');
  assert.equal(await answer, 'secret');
});

test('half a character in one piece and half in the next are one', async () => {
  const { terminal, press } = fakeTerminal();
  const answer = terminal.askSecret('? ');
  const [first, ...rest] = Buffer.from('é');
  press(Buffer.from([first ?? 0]));
  press(Buffer.from(rest));
  press('\r');
  assert.equal(await answer, 'é');
});

test('what was pasted ahead answers the next question', async () => {
  const { output, terminal, press } = fakeTerminal();
  const name = terminal.ask('User: ');
  press('alice\rsecret\r');
  assert.equal(await name, 'alice');
  assert.equal(await terminal.askSecret('Password: '), 'secret');
  assert.equal(output.text, 'User: alice\nPassword: \n');
});

test('confirm() takes a yes, and anything else for a no', async () => {
  for (const [keys, expected] of [
    ['y\r', true],
    ['Yes\r', true],
    ['\r', false],
    ['no\r', false],
  ] as const) {
    const { terminal, press } = fakeTerminal();
    const answer = terminal.confirm('Sure?');
    press(keys);
    assert.equal(await answer, expected, JSON.stringify(keys));
  }
});

test('a new password is asked for twice', async () => {
  const same = fakeTerminal();
  const accepted = askNewPassword(same.terminal);
  same.press('one\rone\r');
  assert.equal(await accepted, 'one');
  const other = fakeTerminal();
  const refused = askNewPassword(other.terminal);
  other.press('one\rtwo\r');
  await assert.rejects(refused, /The two passwords differ/);
  const empty = fakeTerminal();
  const nothing = askNewPassword(empty.terminal);
  empty.press('\r');
  await assert.rejects(nothing, /empty password/);
});

test('without a terminal at both ends nobody is asked', () => {
  const { input, output } = fakeTerminal();
  assert.equal(openTerminal({ ...input, isTTY: false } as never, output), undefined);
  assert.equal(openTerminal(input, { ...output, isTTY: false }), undefined);
});
