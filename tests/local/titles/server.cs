// A game server as Mono runs them: server.exe PORT STATE
// Answers each TCP connection with how often it was started; /exit on stdin saves and ends.
using System;
using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;

static class Server
{
    static int Main(string[] words)
    {
        string path = Path.Combine(words[1], "starts");
        int starts = File.Exists(path) ? int.Parse(File.ReadAllText(path)) : 0;
        starts++;
        var listener = new TcpListener(IPAddress.Any, int.Parse(words[0]));
        listener.Start();
        var serving = new Thread(() => Serve(listener, starts)) { IsBackground = true };
        serving.Start();
        Console.WriteLine("Ready!");
        string line;
        while ((line = Console.ReadLine()) != "/exit")
            if (line == null) Thread.Sleep(Timeout.Infinite);
        File.WriteAllText(path, starts + "\n"); // what a kill would have lost
        return 0;
    }

    static void Serve(TcpListener listener, int starts)
    {
        byte[] answer = Encoding.ASCII.GetBytes("mono start " + starts + "\n");
        while (true)
            using (var player = listener.AcceptTcpClient())
                player.GetStream().Write(answer, 0, answer.Length);
    }
}
